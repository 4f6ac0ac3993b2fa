"""Watch sessions over WebRTC: a leader that pulls streams from go2rtc and sends them to all viewers, and one child a
session, which finds the way to its viewer and hears what it says."""
