/** What a page downloads that imports one package: bundled with all that it needs, minified, compressed. */

import path from 'node:path'
import { gzipSync } from 'node:zlib'
import { build, type Rolldown } from 'vite'
import { describe, expect, it } from 'vitest'

/** Kilobytes; a little above what it takes today, so that a heavy dependency is noticed and not every line. */
const BUDGETS: Readonly<Record<string, number>> = {
  safetensors: 10,
  core: 40,
  formats: 50,
  model: 64,
  pipeline: 115,
  inspection: 40,
  'quantizer-rtn': 35,
  'quantizer-gptq': 35,
  'quantizer-vptq': 38,
  'quantizer-gptvq': 35,
  palettize: 38,
  'kernels-cpu': 84,
  'kernels-webgpu': 64,
}

const root = path.resolve(import.meta.dirname, '../..')

async function kilobytes(name: string): Promise<number> {
  const built = (await build({
    ...{ root, configFile: false, logLevel: 'error' },
    build: {
      ...{ write: false, target: 'es2023', minify: true, assetsInlineLimit: 0 },
      rollupOptions: {
        // Everything that it exports, though a page that takes less gets less.
        input: path.join(root, `packages/${name}/src/index.ts`),
        preserveEntrySignatures: 'strict',
        external: ['webgpu', '@observablehq/plot'],
      },
    },
    worker: { format: 'es' },
  })) as Rolldown.RolldownOutput
  const sizes = built.output.map((file) => {
    // A page fetches one of the builds of the kernels, not all four.
    if (file.fileName.endsWith('.wasm') && !file.fileName.includes('strict-threads')) return 0
    return gzipSync(file.type === 'chunk' ? file.code : file.source).length
  })
  return sizes.reduce((sum, size) => sum + size, 0) / 1000
}

describe('bytes over the wire', () => {
  it.each(Object.entries(BUDGETS))('@lowbit/%s stays within %d kB', async (name, budget) => {
    const size = await kilobytes(name)
    expect(size).toBeGreaterThan(budget / 3)
    expect(size).toBeLessThanOrEqual(budget)
  })
})
