/**
 * The contract of kernels on the NVIDIA GPU of this machine, where it has one. Arguments go to vitest:
 * `npm run test:cuda -- -t gram`. With `--sanitize` on an emulated GPU that checks every access, where g++ is.
 */

import { spawnSync } from 'node:child_process'
import path from 'node:path'
import {
  buildEmulation,
  noEmulation,
  sanitizedEnvironment,
} from '../../packages/kernels-cuda-bindings/tooling/emulate.ts'

const root = path.resolve(import.meta.dirname, '../..')
const home = path.join(root, 'packages/kernels-cuda-bindings')

const words = process.argv.slice(2)
if (words.includes('--sanitize')) sanitize(words.filter((word) => word !== '--sanitize'))

const { cuda } = await import(path.join(home, 'src/index.ts'))
const found = await cuda().catch((error: Error) => error)
if (found instanceof Error) {
  console.log(`skipped: ${found.message}`)
  process.exit(0)
}
console.log(`› ${found.device}, driver for CUDA ${found.driver}`)
found.dispose()
const config = path.join(home, 'gpu-tests/vitest.config.ts')
const { status } = spawnSync(
  path.join(root, 'node_modules/.bin/vitest'),
  ['run', '--root', home, '--config', config, ...words],
  { stdio: 'inherit' },
)
process.exit(status ?? 1)

function sanitize(groups: readonly string[]): never {
  const reason = noEmulation()
  if (reason) {
    console.log(`skipped: ${reason}`)
    process.exit(0)
  }
  const library = buildEmulation('sanitized')
  const env = { ...process.env, ...sanitizedEnvironment() }
  const script = path.join(home, 'tooling/sanitized.ts')
  process.exit(
    spawnSync(process.execPath, [script, library, ...groups], { stdio: 'inherit', env }).status ??
      1,
  )
}
