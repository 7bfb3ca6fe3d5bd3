// Node: errors through V8's runtime, scripts, workers, garbage; in a storm, children.
'use strict';
const fs = require('fs'), vm = require('vm'), child = require('child_process');
const { Worker } = require('worker_threads');
function work() {
  let sum = 0;
  for (let i = 0; i < 500; i++) {
    try { throw new Error('order ' + i); } catch (e) { sum += e.message.length; }
    try { JSON.parse('{"a":' + i); } catch (e) { sum += e.name.length; }
    sum += new vm.Script(`${i} * 3`).runInThisContext();
  }
  return sum;
}
if (process.argv[2] === 'child') process.exit(work() > 0 ? 77 : 78);
work();
fs.writeSync(1, `ready ${process.pid}\n`);
const line = Buffer.alloc(64);
for (;;) {
  const n = fs.readSync(0, line);
  if (!n) break;
  const storm = line[0] === 's'.charCodeAt(0);
  const sum = work();
  let wrong = 0;
  if (storm) for (let i = 0; i < 4; i++) if (child.spawnSync(process.execPath, [__filename, 'child']).status !== 77) wrong++;
  fs.writeSync(1, JSON.stringify({ sum, calls: { 'node::contextify::ContextifyScript::New': 500, 'node::contextify::ContextifyScript::RunInContext': 500 }, wrong, children: storm ? 1e6 : 0 }) + '\n');
}
process.exit(56);
