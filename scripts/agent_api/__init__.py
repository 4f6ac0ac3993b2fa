"""The modules of the published package `agent`, by their published names: `from agent.tun import create_tun`.

scripts/agent.py is that package for programs that lie beside it, or have it on PYTHONPATH. All of it is procs/agent.
"""
