/** Compiles assembly/index.ts into wasm/{strict,relaxed}[-threads].wasm. */

import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const root = fileURLToPath(new URL('..', import.meta.url))
mkdirSync(`${root}wasm`, { recursive: true })

/** Pages of 64 KiB; the most that wasm32 can address. The host imports a smaller memory. */
const MOST = '65536'

const builds: Record<string, string[]> = {
  strict: [],
  relaxed: ['--enable', 'relaxed-simd'],
  'strict-threads': ['--enable', 'threads', '--sharedMemory', '--maximumMemory', MOST],
  'relaxed-threads': [
    ...['--enable', 'relaxed-simd', '--enable', 'threads'],
    ...['--sharedMemory', '--maximumMemory', MOST],
  ],
}

const results = await Promise.all(
  Object.entries(builds).map(async ([name, flags]) => {
    const { error, stderr } = await asc.main([
      'assembly/index.ts',
      ...['--baseDir', root, '--outFile', `wasm/${name}.wasm`],
      ...['-O3', '--noAssert', '--uncheckedBehavior', 'always', '--runtime', 'stub'],
      ...['--importMemory', '--noExportMemory', '--initialMemory', '4', '--memoryBase', '1024'],
      ...['--use', 'abort=', '--enable', 'simd', ...flags],
    ])
    return error ? `${name}: ${stderr.toString()}` : ''
  }),
)
const failures = results.filter(Boolean)
if (failures.length > 0) {
  console.error(failures.join('\n'))
  process.exit(1)
}
