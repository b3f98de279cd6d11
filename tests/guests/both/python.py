# Python: prints results that are equal on every machine.
import cmath, decimal, fractions, functools, hashlib, json, math, random, re, struct, threading, zlib

r = random.Random(20221211)
data = r.randbytes(300000)
for name in ('md5', 'sha1', 'sha256', 'sha512', 'sha3_256', 'blake2b', 'blake2s'):
    print(name, hashlib.new(name, data).hexdigest())
print('pbkdf2', hashlib.pbkdf2_hmac('sha256', b'password', b'salt', 2000).hex())
print('scrypt', hashlib.scrypt(b'password', salt=b'salt', n=1024, r=8, p=1).hex())
print('crc', zlib.crc32(data), zlib.adler32(data), hashlib.md5(zlib.decompress(zlib.compress(data, 9))).hexdigest())

fs = [r.uniform(-50, 50) for _ in range(500)] + [0.0, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]
ops = {'add': lambda a, b: a + b, 'sub': lambda a, b: a - b, 'mul': lambda a, b: a * b, 'div': lambda a, b: a / b,
       'mod': math.fmod, 'pow': lambda a, b: math.pow(abs(a), b), 'hypot': math.hypot, 'atan2': math.atan2,
       'copysign': math.copysign, 'remainder': math.remainder}
for name, f in ops.items():
    h = hashlib.md5()
    for i, a in enumerate(fs):
        try:
            h.update(repr(f(a, fs[(i * 7 + 3) % len(fs)])).encode())
        except (ArithmeticError, ValueError) as e:
            h.update(type(e).__name__.encode())
    print(name, h.hexdigest())
for name in ('sqrt', 'sin', 'cos', 'tan', 'exp', 'log', 'log2', 'log10', 'log1p', 'expm1', 'sinh', 'cosh', 'tanh', 'asinh', 'erf', 'gamma',
             'lgamma', 'floor', 'ceil', 'trunc', 'cbrt'):
    h, f = hashlib.md5(), getattr(math, name, None)
    for a in fs:
        try:
            h.update(repr(f(a)).encode())
        except (ArithmeticError, ValueError, TypeError) as e:
            h.update(type(e).__name__.encode())
    if f and name != 'cbrt':
        print(name, h.hexdigest())
print('sums', repr(sum(fs[:500])), repr(math.fsum(fs[:500])), cmath.exp(1j), cmath.sqrt(-2 + 1j))
print('floats', hashlib.md5(struct.pack('<507d', *fs)[:-8]).hexdigest(), (1.1).hex(), float.fromhex('0x1.999999999999ap-4'))
print('single', hashlib.md5(struct.pack('<500f', *fs[:500])).hexdigest())

print('factorial', hashlib.md5(str(math.factorial(1200)).encode()).hexdigest())
p = 2 ** 521 - 1
print('modpow', hashlib.md5(str(pow(3, p - 2, p)).encode()).hexdigest(), pow(3, p - 1, p), pow(7, -1, p) * 7 % p)
big = [r.getrandbits(b) for b in range(1, 3000, 37)]
print('big', hashlib.md5(repr([(a * b, b // (a or 1), b % (a or 1), a ^ b, a << 13, math.isqrt(b), math.gcd(a, b))
                               for a, b in zip(big, big[1:])]).encode()).hexdigest())
decimal.getcontext().prec = 60
print('decimal', decimal.Decimal(2).sqrt(), decimal.Decimal(3).ln(), decimal.Decimal(1) / 7)
print('fractions', sum(fractions.Fraction(1, n) for n in range(1, 60)))
print('json', hashlib.md5(json.dumps(json.loads(json.dumps([fs[:500], [str(b) for b in big]]))).encode()).hexdigest())
words = [''.join(r.choice('abcde') for _ in range(r.randrange(1, 9))) for _ in range(20000)]
print('sort', hashlib.md5(' '.join(sorted(words)).encode()).hexdigest(), len(set(words)))
print('re', len(re.findall(r'\b(a+b?)(c|d)*e\b', ' '.join(words))))
print('fib', functools.reduce(lambda t, _: (t[1], t[0] + t[1]), range(1000), (0, 1))[0] % 10 ** 20)
total, lock = [0], threading.Lock()


def work():
    for n in range(5000):
        with lock:
            total[0] += n


threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print('threads', total[0])
