"""Where everything is to be found: what `make up` says at its end."""

from __future__ import annotations

from pathlib import Path

from procs.audio_io.token import FILE as AUDIO_TOKEN
from procs.ws_link import identity
from scripts import speaking
from scripts.plan import Plan


def show(run_dir: Path, plan: Plan, password: str) -> None:
    """Print them. `password`: of the hub's first account, if it was made just now and nobody has seen it."""
    chosen, device = plan.suite, ""
    if "device" in chosen.roles:
        device = identity.load(run_dir, plan.wall.link.device_id).device_id
    print()
    if "hub" in chosen.roles:
        print(f"hub     {plan.wall.hub_url}/")
        if "device" not in chosen.roles:
            _print_backend(plan)
        if password:
            print(f"sign in admin {password}     (shown this once: keep it)")
    if device and "hub" in chosen.roles and plan.wall.is_own_hub:
        print(f"device  {plan.wall.hub_url}/api/devices/{device}/proxy/     (its go2rtc, after the same login)")
    elif device:
        print(f"device  {device} at {plan.wall.link.backend}; scripts/pair.py gives a code to pair it with")
    if "streams" in chosen.roles:
        _print_streams(plan)
    if backend := speaking.backend(plan):
        print(
            f"voice   {backend['url']}     (REST, metrics, browsers; it calls the devices of {backend['devices_file']})"
        )
    for program, where in speaking.places(plan).items():
        print(f"{program:<7} {where}")
    if "audio" in chosen.roles:
        _print_audio(run_dir, plan)
    where = "; streams are set in planaria.yaml (see README.md)" if "streams" in chosen.roles else ""
    print(f"next    make status, make logs, make down{where}", flush=True)


def _print_backend(plan: Plan) -> None:
    """Where devices elsewhere find the hub: which of this machine's addresses they reach is not for us to know."""
    hub = plan.wall.hub
    is_every = hub.listen.host in ("0.0.0.0", "::")
    where = f"NAME:{hub.listen.port}" if is_every else str(hub.listen)
    name = f"; NAME: {'as in its certificate' if hub.cert else 'by which it is reached'}" if is_every else ""
    print(f"devices BACKEND_URL={'wss' if hub.cert else 'ws'}://{where}/ws/device     (in a device's .env{name})")


def _print_audio(run_dir: Path, plan: Plan) -> None:
    audio = plan.audio
    where = "" if audio.token or not audio.needs_token else f"; its token: {audio.token_file or run_dir / AUDIO_TOKEN}"
    print(f"audio   {'wss' if audio.cert else 'ws'}://{audio.listens}     (for a backend's devices.json{where})")


def _print_streams(plan: Plan) -> None:
    first = next(iter(plan.streams), None)
    if not plan.suite.no_ui:
        print(f"pages   http://{plan.suite.api}/")
    if first and not plan.suite.no_ui:
        print(f"watch   http://{plan.suite.api}/stream.html?src={first}")
    if first:
        print(f"play    ffplay -fflags nobuffer -rtsp_transport tcp rtsp://{plan.suite.rtsp}/{first}")
    empty = [path for name, path in plan.fifos.items() if name not in plan.captures]
    if empty:
        print(f"fill    scripts/fifo_writer.sh {empty[0]} COMMAND ...   (pipes for others to fill: {len(empty)})")
