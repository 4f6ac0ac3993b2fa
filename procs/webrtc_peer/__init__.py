"""Watch sessions over WebRTC: a leader that pulls streams from go2rtc, and one short-lived child a session."""
