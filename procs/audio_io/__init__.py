"""audio_io: ears and mouth of a device. A backend dials it, hears its microphone and speaks through its speaker."""
