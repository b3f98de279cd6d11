// Code that is made while it runs, by several threads of one process at a time. usage: node jit.js THREADS ROUNDS
// Prints one checksum; each thread must come to it. The same by `node --jitless`, where no code is made.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
function work(rounds) {
	let h = 17;
	for (let r = 0; r < rounds; r++) {
		const f = new Function('a', 'b', `let s = ${r} | 0; for (let i = 0; i < 3000; i++) {
			s = Math.imul(s ^ a, ${2 * r + 16777619}) + (b[i & 15] * ${r + 1} | 0) | 0; a = a + ${r & 7} | 0; } return s;`);
		const ints = Array.from({ length: 16 }, (_, i) => i * r + 3), floats = ints.map(x => x / 2 + 0.25);
		for (let i = 0; i < 12; i++)
			h = Math.imul(h ^ f(i, i % 5 == 4 ? floats : ints), 0x01000193) >>> 0; // now and then other types: deoptimizes
		if (r % 16 == 15)
			h = h ^ [...JSON.stringify({ r, ints, floats })].reduce((s, c) => s * 31 + c.charCodeAt(0) | 0, 0) >>> 0;
	}
	return h >>> 0;
}
if (!isMainThread) {
	parentPort.postMessage(work(workerData));
} else {
	const [threads, rounds] = process.argv.slice(2).map(Number), all = [];
	for (let i = 0; i < threads; i++)
		all.push(new Promise((ok, no) => new Worker(__filename, { workerData: rounds }).on('message', ok).on('error', no)));
	Promise.all(all).then(v => {
		const other = v.filter(x => x != v[0]);
		console.log(other.length ? 'the threads disagree: ' + v : v[0]);
		process.exitCode = other.length ? 1 : 0;
	});
}
