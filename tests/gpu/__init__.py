"""Tests that need an NVIDIA GPU: what OpenGL draws, CUDA maps and NVENC or x264 encodes, against references of the CPU.

    python -m pytest tests/gpu -q -s            pictures, streams, processes, faults (-s: figures are printed)
    PLANARIA_LONG=1 python -m pytest tests/gpu  the same with a stream of a minute at 1280x720, 60 pictures a second
    python -m tests.bench gpu [--quick] [--json]

Without a GPU all of it is skipped with one reason. Where there is no Python environment of ours these packages are
enough, and whatever else the machine's Python brings stays out of the way with PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 and
`-p pytest_timeout`:

    av  pyopengl  cuda-bindings  cuda-pathfinder  msgspec  pyzmq  python-dotenv  pyyaml  numpy
    pytest  pytest-timeout  hypothesis

and of the system libegl1 and libopengl0 (libglvnd) beside NVIDIA's driver with its EGL part; in a container the
driver's capabilities must have `graphics`, `compute`, `utility` and `video`.
tests/faults/test_gpu_smoke.py runs them against drivers of our own (tests/drivers), where nothing is fast or real.
"""
