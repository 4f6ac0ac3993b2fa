"""The fast lane (plane 3): IP packets as AES-GCM records, under keys that a session's DTLS has given, on one port."""
