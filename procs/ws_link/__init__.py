"""The device's control connection to the hub: says who it is and how it does, and hands work to the proxies."""
