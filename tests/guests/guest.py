"""Drives a guest at its serial console, as a user would: start, expect, send, wait.

The program under test is $LHYVE, else build/src/cmd/lhyve. Files to boot come from the cache (tools/guest-files.sh, tools/image.sh)."""
import os, re, selectors, subprocess, sys, tempfile, time

TOP = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
LHYVE = os.environ.get('LHYVE') or os.path.join(TOP, 'build/src/cmd/lhyve')
CACHE = os.environ.get('LHYVE_CACHE') or os.path.join(
    os.environ.get('XDG_CACHE_HOME') or os.path.join(os.environ.get('HOME', '/root'), '.cache'), 'lhyve')
PLAIN = ['-H', '-P', '-u', '-s', '0,hostbridge', '-s', '31,lpc', '-l', 'com1,stdio', '-o', 'engine=' + (os.environ.get('LHYVE_TEST_ENGINE') or 'soft')]
PLAIN += [w for o in os.environ.get('LHYVE_TEST_OPTIONS', '').split() for w in ('-o', o)]
SLOW = float(os.environ.get('LHYVE_TEST_SLOW') or 1)  # limits are times this
INSIDE = os.environ.get('LHYVE_TEST_INSIDE')  # in a nested machine (nested_suite.py): nothing is fetched, this is the Debian disk

# For kernels' command lines. A character of the console is two exits, which a nested machine takes long for: there a kernel says
# warnings and worse only (level 4 and below), which are what tests look for.
CONSOLE = 'console=ttyS0' + (' loglevel=5 systemd.show_status=false' if INSIDE else '')


class Failed(Exception):
    pass


def files(*what):
    if INSIDE:
        return
    subprocess.run([os.path.join(TOP, 'tools/guest-files.sh'), *what], check=True)


def image(*args):
    if INSIDE:
        return os.path.join(CACHE, 'debian')
    subprocess.run([os.path.join(TOP, 'tools/image.sh'), *args], check=True)
    return os.path.join(CACHE, 'debian')


def overlay(path, where):
    """A sparse copy of an image, so that a test may write to it."""
    if INSIDE and path == os.path.join(CACHE, 'debian', 'disk.img'):
        return INSIDE
    out = os.path.join(where, os.path.basename(path))
    subprocess.run(['cp', '--sparse=always', '--reflink=auto', path, out], check=True)
    return out


class Guest:
    def __init__(self, args=(), name='test-%d' % os.getpid(), command=None):
        self.name, self.seen, self.log, self.slow = name, '', '', SLOW
        self.command = command or [LHYVE, *args, name]
        if os.environ.get('GUEST_VERBOSE'):
            print('+', ' '.join(self.command), file=sys.stderr)
        self.start = time.monotonic()
        self.p = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(self.p.stdout.fileno(), False)
        self.sel = selectors.DefaultSelector()
        self.sel.register(self.p.stdout, selectors.EVENT_READ)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()

    def read(self, timeout):
        """What comes within the time; '' at its end, None at the end of the output."""
        if not self.sel.select(max(0, timeout)):
            return ''
        raw = self.p.stdout.read()
        if not raw:
            return None
        text = raw.decode('latin-1')
        if os.environ.get('GUEST_VERBOSE'):
            sys.stderr.write(text)
        self.log += text
        self.seen += text
        return text

    def fail(self, why):
        raise Failed('%s\n--- the end of the console after %.1f s ---\n%s' % (why, time.monotonic() - self.start, self.log[-3000:]))

    def expect(self, pattern, timeout=60, never=None):
        """Waits for a pattern behind what was matched before; returns the match. `never`: a pattern that must not come first."""
        timeout *= self.slow
        end = time.monotonic() + timeout
        while True:
            m = re.search(pattern, self.seen)
            if never:
                n = re.search(never, self.seen[:m.start()] if m else self.seen)
                if n:
                    self.fail('saw %r before %r' % (n.group(0), pattern))
            if m:
                self.seen = self.seen[m.end():]
                return m
            left = end - time.monotonic()
            if left <= 0:
                self.fail('no %r within %d s' % (pattern, timeout))
            if self.read(left) is None:
                self.fail('the guest ended (status %s) before %r' % (self.p.wait(), pattern))

    def send(self, text):
        self.p.stdin.write(text.encode())
        self.p.stdin.flush()

    def sh(self, command, timeout=60):
        """Runs a command at a shell prompt; (status, output)."""
        mark = 'm%d' % (time.monotonic_ns() % 1000000007)
        self.send('echo "<%s"; { %s; } 2>&1; echo "%s:$?>"\n' % (mark, command, mark))
        self.expect('[\r\n]<%s\r?\n' % mark, timeout)
        m = self.expect('%s:(\\d+)>' % mark, timeout)
        text = self.log[:self.log.rindex(m.group(0))]
        text = text[text.rindex('<%s' % mark) + len(mark) + 1:]
        return int(m.group(1)), text.replace('\r', '').strip('\n')

    def check(self, command, timeout=60):
        status, out = self.sh(command, timeout)
        if status:
            self.fail('%r ended with %d: %s' % (command, status, out[-1500:]))
        return out

    def wait(self, timeout=60):
        timeout *= self.slow
        end = time.monotonic() + timeout
        while self.p.poll() is None and time.monotonic() < end:
            if self.read(min(0.2, end - time.monotonic())) is None:
                try:
                    self.p.wait(max(0.1, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    break
        while self.read(0):
            pass
        if self.p.poll() is None:
            self.fail('still running after %d s' % timeout)
        return self.p.returncode

    def ends(self, status, timeout=60):
        got = self.wait(timeout)
        if got != status:
            self.fail('ended with status %d, expected %d' % (got, status))


def run(*cases):
    """Runs each function; exit status 1 if one failed. Names on the command line choose some."""
    bad = 0
    for case in cases:
        if len(sys.argv) > 1 and case.__name__ not in sys.argv[1:]:
            continue
        t = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix='lhyve-guest.') as where:
                case(where)
            print('ok    %s (%.1f s)' % (case.__name__, time.monotonic() - t), flush=True)
        except (Failed, subprocess.CalledProcessError, OSError) as e:
            print('FAIL  %s: %s' % (case.__name__, e), flush=True)
            bad = 1
    sys.exit(bad)
