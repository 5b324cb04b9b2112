/**
 * The contract of kernels on an emulated GPU whose library checks every access (AddressSanitizer) and every operation
 * (UndefinedBehaviorSanitizer), with threads in either order: `npm run test:cuda -- --sanitize [group …]`. The first
 * error ends the process, with the kernel's line.
 */

import { type KernelGroup, runKernelChecks } from '@lowbit/testing/checks'
import { cuda } from '../src/index.ts'

const [library, ...groups] = process.argv.slice(2)
const only = groups.length > 0 ? (groups as KernelGroup[]) : undefined

let failed = 0
for (const backwards of [false, true]) {
  if (backwards) process.env.LOWBIT_EMULATED_BACKWARDS = '1'
  const order = backwards ? 'the last threads first' : 'the first threads first'
  let at = ''
  const results = await runKernelChecks(() => cuda({ library }), {
    only,
    onProgress(_done, _total, { group }) {
      if (group !== at) console.log(`› ${group}, ${order}`)
      at = group
    },
  })
  for (const { group, name, ok, error } of results) {
    if (!ok) console.log(`✗ ${group}: ${name}: ${error}`)
  }
  failed += results.filter(({ ok }) => !ok).length
  console.log(`${results.length} checks, ${order}: nothing that sanitizers find`)
}
process.exit(failed > 0 ? 1 : 0)
