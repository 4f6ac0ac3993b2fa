"""Entry points that people and go2rtc call; each is thin and leaves the work to procs/."""
