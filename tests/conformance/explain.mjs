// Prints the failed checks in a results folder of run.sh, one a line: scenario, check, reason.
//
//   explain.mjs target/conformance/2026-07-28

import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

const results = process.argv[2];
for (const folder of readdirSync(results).sort()) {
  const scenario = /^server-(.*)-\d{4}-\d{2}-\d{2}T/.exec(folder)?.[1];
  if (scenario === undefined) continue;
  for (const check of JSON.parse(readFileSync(path.join(results, folder, 'checks.json'), 'utf8'))) {
    if (check.status === 'FAILURE' || check.status === 'WARNING') {
      console.log(`${scenario}:${check.id}  ${check.errorMessage ?? check.description}`);
    }
  }
}
