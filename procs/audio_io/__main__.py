"""python -m procs.audio_io: lends a backend this machine's microphone and speaker, until killed."""

from procs import life
from procs.audio_io import door, options

if __name__ == "__main__":
    life.run("audio_io", options.load, door.serve)
