/**
 * The contract of kernels on the NVIDIA GPU of this machine, where it has one. Arguments go to vitest:
 * `npm run test:cuda -- -t gram`.
 */

import { spawnSync } from 'node:child_process'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')
const home = path.join(root, 'packages/kernels-cuda-bindings')

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
  ['run', '--root', home, '--config', config, ...process.argv.slice(2)],
  { stdio: 'inherit' },
)
process.exit(status ?? 1)
