"""The way to a device's own HTTP: streams, what is asked again, own origins, thumbnails."""
