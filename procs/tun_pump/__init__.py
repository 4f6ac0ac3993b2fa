"""The tunnel's interface: packets between the kernel and the sessions that carry them."""
