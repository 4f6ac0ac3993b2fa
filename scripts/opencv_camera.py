"""What OpenCV sees, as H.264 in MPEG-TS on stdout: an example of a capture of your own.

Needs `pip install opencv-python`. In planaria.yaml: captures: {camera: python scripts/opencv_camera.py --device 0}
Between `read` and `write` is the place for whatever is to be drawn into the picture, or left out of it.
"""

from __future__ import annotations

import subprocess
import sys

from imageio_ffmpeg import get_ffmpeg_exe

from procs.errors import ConfigError, NotHere
from procs.flags import command_line

EXAMPLES = """\
  scripts/opencv_camera.py --device 0 | ffplay -
  scripts/opencv_camera.py --device rtsp://192.0.2.7/stream1 --fps 15 --bitrate 800k"""


def main() -> int:
    """Read and write until one side ends. Returns 2 for wrong words, 3 without OpenCV or a camera."""
    parser = command_line("opencv_camera", (__doc__ or "").splitlines()[0], EXAMPLES)
    parser.add_argument("--device", default="0", help="number of a camera, or whatever else OpenCV opens")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--bitrate", default="2M")
    try:
        arguments = parser.parse_args()
    except ConfigError as error:
        return _said(str(error), error.exit_code)
    try:
        import cv2  # type: ignore[import-not-found,unused-ignore]  # no dependency of ours
    except ImportError:
        return _said("OpenCV is not installed here: pip install opencv-python")
    camera = cv2.VideoCapture(int(arguments.device) if arguments.device.isdigit() else arguments.device)
    is_there, picture = camera.read()
    if not is_there:
        return _said(f"--device {arguments.device}: OpenCV gets no picture of it; v4l2-ctl --list-devices shows some")
    height, width = picture.shape[:2]
    encoder = subprocess.Popen(_encoder(width, height, arguments.fps, arguments.bitrate), stdin=subprocess.PIPE)
    assert encoder.stdin
    while is_there:
        try:
            encoder.stdin.write(picture.tobytes())
        except BrokenPipeError:
            break
        is_there, picture = camera.read()
    encoder.stdin.close()
    return encoder.wait()


def _encoder(width: int, height: int, fps: int, bitrate: str) -> list[str]:
    """No B-frames, which browsers show in the wrong order over WebRTC; a keyframe every second, for who joins."""
    taken = f"-f rawvideo -pix_fmt bgr24 -s {width}x{height} -r {fps} -i pipe:0"
    made = f"-pix_fmt yuv420p -c:v libx264 -preset veryfast -tune zerolatency -bf 0 -g {fps} -b:v {bitrate}"
    return [get_ffmpeg_exe(), *f"-v error {taken} {made} -f mpegts -flush_packets 1 pipe:1".split()]


def _said(why: str, code: int = NotHere.exit_code) -> int:
    print(f"opencv_camera: {why}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
