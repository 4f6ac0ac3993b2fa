"""python -m procs.webrtc_peer: shows this device's streams to viewers over WebRTC, until killed."""

# What the leader and its zygote both need they need not import twice. None of it makes a thread, a socket or an event
# loop before it is used: what the zygote is forked from has none of these.
from procs import brood, life
from procs.webrtc_peer import options, shell

if __name__ == "__main__":
    BROOD = brood.hatch("webrtc_peer", "procs.webrtc_peer.birth", "live")
    life.run("webrtc_peer", options.load, lambda settings, alive: shell.serve(settings, alive, BROOD))
