"""agent.config"""

from procs.agent.settings import AgentSettings, load_settings

__all__ = ["AgentSettings", "load_settings"]
