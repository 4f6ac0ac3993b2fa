"""agent.tun"""

from procs.agent.device import TunDevice
from procs.agent.tun import TunError, check_tun_support, create_tap, create_tun, get_interface_info

__all__ = ["TunDevice", "TunError", "check_tun_support", "create_tap", "create_tun", "get_interface_info"]
