"""The voice backend: dials devices, listens, thinks, speaks. A brood: the leader owns devices.json, REST and the
store; one child holds one conversation."""
