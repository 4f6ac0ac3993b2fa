"""python -m procs.webrtc_peer: shows this device's streams to viewers over WebRTC, until killed."""

from procs import brood

if __name__ == "__main__":
    # Before anything else is imported: what the zygote is forked from has no thread, no socket and no event loop.
    BROOD = brood.hatch("webrtc_peer", "procs.webrtc_peer.birth", "live")

    from procs import life
    from procs.webrtc_peer import options, shell

    life.run("webrtc_peer", options.load, lambda settings, alive: shell.serve(settings, alive, BROOD))
