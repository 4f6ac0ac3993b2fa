"""Carries requests of the hub to go2rtc, and to what else the settings name. What no rule allows is refused."""
