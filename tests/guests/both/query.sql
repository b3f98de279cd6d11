-- sqlite: prints results that are equal on every machine. Runs on a new database file.
PRAGMA journal_mode=WAL;
CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b REAL, c TEXT);
WITH RECURSIVE n(i, x) AS (SELECT 1, 12345 UNION ALL SELECT i + 1, (x * 1103515245 + 12345) & 2147483647 FROM n WHERE i < 20000)
  INSERT INTO t SELECT i, x % 1000, x / 977.0, printf('%08x-%d', x, i % 17) FROM n;
CREATE INDEX t_a ON t(a, b);
CREATE INDEX t_c ON t(c);
SELECT count(*), sum(a), printf('%.6f', sum(b)), min(c), max(c) FROM t;
SELECT a, count(*) AS k, printf('%.4f', avg(b)) FROM t GROUP BY a ORDER BY k DESC, a LIMIT 20;
SELECT t.a, u.c FROM t JOIN t AS u ON u.id = t.a + 1 WHERE t.b BETWEEN 100000 AND 120000 ORDER BY t.id LIMIT 20;
SELECT id, sum(a) OVER (ORDER BY id ROWS 10 PRECEDING), rank() OVER (PARTITION BY a % 7 ORDER BY b) FROM t WHERE id % 997 = 0 ORDER BY id;
BEGIN; UPDATE t SET a = a * 3 + id WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 0; COMMIT;
BEGIN; DELETE FROM t; ROLLBACK;
SELECT count(*), sum(a), sum(length(c)), sum(unicode(substr(c, 3, 1)) * id) FROM t;
SELECT c, hex(substr(c, 1, 4)), instr(c, '-'), upper(c), replace(c, '-', '/') FROM t WHERE c LIKE '%ab%' ORDER BY c LIMIT 20;
WITH RECURSIVE m(y, x, zr, zi, k) AS (SELECT r.value, c.value, 0.0, 0.0, 0 FROM json_each('[-1.0,-0.6,-0.2,0.1,0.5]') r,
  json_each('[-2.0,-1.5,-1.0,-0.5,0.0,0.3]') c UNION ALL SELECT y, x, zr * zr - zi * zi + x, 2 * zr * zi + y, k + 1 FROM m
  WHERE zr * zr + zi * zi < 4 AND k < 60) SELECT y, x, max(k) FROM m GROUP BY y, x ORDER BY y, x;
VACUUM;
PRAGMA integrity_check;
