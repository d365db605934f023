# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real terminal, tmux, with a shell in it: what a person sees."""

import re
import shlex
import subprocess

from kit.ctl import environment
from kit.waiting import DEADLINE, wait_until


class Terminal:
    def __init__(self, directory, width=100, height=24, user=None, **variables):
        self.socket = f"{directory}/tmux"
        shell = ["setpriv", f"--reuid={user}", "--clear-groups", "sh"] if user else ["sh"]
        # What the shell finds in its environment; tmux sets TERM and adds things of its own.
        mine = environment(**{"TERM": "screen-256color", "PS1": "$ ", **variables})
        words = ["env", "-i", *(f"{name}={value}" for name, value in mine.items()), *shell]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, shlex.join(words))
        self.wait(r"^[$#]", "the prompt")

    def _tmux(self, *words):
        done = subprocess.run(["tmux", "-S", self.socket, *map(str, words)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env=environment())
        assert done.returncode == 0, f"tmux {words}: {done.stdout}"
        return done.stdout

    def type(self, line):
        self._tmux("send-keys", "-l", line)
        self.press("Enter")

    def keys(self, text):
        """A line that is not ended yet; a tab is the key."""
        for piece in re.split("(\t)", text):
            if piece == "\t":
                self.press("Tab")
            elif piece:
                self._tmux("send-keys", "-l", "--", piece)

    def press(self, key):
        self._tmux("send-keys", key)

    def resize(self, width, height=24):
        self._tmux("resize-window", "-x", width, "-y", height)

    def screen(self, colours=False):
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def wait(self, pattern, what=None, deadline=DEADLINE):
        """The screen, as soon as there is this on it; colours are not in it."""
        def look():
            screen = self.screen()
            return screen if re.search(pattern, screen, re.MULTILINE) else None
        try:
            return wait_until(look, what or pattern, deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen:\n{self.screen()}") from None

    def close(self):
        self._tmux("kill-server")
