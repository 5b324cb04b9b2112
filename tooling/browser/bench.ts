/**
 * int4 products of lowbit and onnxruntime-web (MatMulNBits on its WebGPU) in one run, on the same adapter, in headless
 * Chromium: `npm run bench:webgpu -- --json`. onnxruntime-web comes with the bench's other peers (tooling/bench).
 */

import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { input, matMulNbits, model, type Nbits, node, output } from '../bench/src/onnx/graph.ts'
import { folderOf, installPeers } from '../bench/src/peers.ts'
import type { Case, Comparison } from './bench/main.ts'
import { bundle } from './src/bundle.ts'
import { ADAPTERS, findChromium, launch, MISSING } from './src/chromium.ts'
import { serve } from './src/serve.ts'

const { values: flags } = parseArgs({
  options: {
    json: { type: 'boolean' },
    rounds: { type: 'string', default: '5' },
    adapter: { type: 'string', default: 'default' },
    only: { type: 'string' },
  },
})

const CASES: readonly (Case & { readonly name: string })[] = [
  { name: 'gemv 1536 × 576', rows: 1536, columns: 576, group: 32, batch: 1, copies: 8 },
  { name: 'gemv 2048 × 2048', rows: 2048, columns: 2048, group: 32, batch: 1, copies: 1 },
  { name: 'gemm 1536 × 576, 128 rows', rows: 1536, columns: 576, group: 32, batch: 128, copies: 1 },
]
/** 0: products in f32; 4: 8-bit activations where the adapter has their dot product. */
const LEVELS = [0, 4]

const executable = findChromium()
if (!executable) {
  console.log(`skipped the bench in a browser: ${MISSING}`)
  process.exit(0)
}
installPeers()
const runtime = path.join(folderOf('onnxruntime-web'), 'dist')
if (!existsSync(runtime)) {
  console.log('skipped the bench in a browser: onnxruntime-web could not be installed')
  process.exit(0)
}
const place = mkdtempSync(path.join(tmpdir(), 'lowbit-bench-'))
const results: object[] = []
try {
  await bundle(path.join(import.meta.dirname, 'bench'), place)
  symlinkSync(runtime, path.join(place, 'ort'))
  const browser = await launch(executable, ADAPTERS[flags.adapter] ?? ADAPTERS.default)
  try {
    for (const { name, ...what } of CASES) {
      if (flags.only && !name.includes(flags.only)) continue
      writeData(what)
      const site = await serve(place, true)
      const page = await browser.newPage()
      page.on('pageerror', (error) => console.error(`  in the page: ${error.message}`))
      await page.goto(site.url)
      await page.waitForFunction(() => 'compare' in window)
      const found: Comparison = await page.evaluate(
        ([asked, levels, rounds]) => window.compare(asked, levels, rounds),
        [what, LEVELS, Number(flags.rounds)] as const,
      )
      await page.close()
      site.close()
      report(name, what, found)
    }
  } finally {
    await browser.close()
  }
} finally {
  rmSync(place, { recursive: true })
}
if (flags.json) console.log(JSON.stringify(results, null, 2))

function report(name: string, { rows, columns, batch, copies }: Case, found: Comparison): void {
  const operations = 2 * rows * columns * batch * copies
  const speeds = found.speeds.map(({ seconds, ...rest }) => ({
    ...{ ...rest, gigaflops: operations / seconds / 1e9 },
    ratio: seconds / found.speeds[0].seconds,
  }))
  const { adapter, variants, skipped } = found
  results.push({ name, adapter, variants, speeds, skipped })
  if (flags.json) return
  console.log(`\n${name}, int4 in groups of 32, on ${adapter}`)
  for (const { name: who, gigaflops, ratio, difference } of speeds) {
    const lead = who === 'lowbit' ? '' : `  lowbit is ${ratio.toFixed(2)}×`
    const off = `differs by ${difference.toExponential(1)}`
    console.log(`  ${who.padEnd(26)} ${gigaflops.toFixed(2).padStart(8)} GFLOP/s  ${off}${lead}`)
  }
  for (const text of skipped) console.log(`  skipped ${text}`)
}

/** Random codes and inputs, for both: raw, and as ONNX models. */
function writeData({ rows, columns, group, batch, copies }: Case): void {
  const folder = path.join(place, 'data')
  mkdirSync(folder, { recursive: true })
  const put = (name: string, data: Uint8Array | Float32Array) =>
    writeFileSync(path.join(folder, name), data)
  const weights = Array.from({ length: copies }, (_, i): Nbits => {
    const codes = Uint8Array.from({ length: (rows * columns) / 2 }, () => Math.random() * 256)
    const scales = Float32Array.from(
      { length: (rows * columns) / group },
      () => Math.random() / 100,
    )
    put(`codes-${i}`, codes)
    put(`scales-${i}`, scales)
    return { rows, columns, bits: 4, group, codes, scales }
  })
  put(
    'x',
    Float32Array.from({ length: batch * columns }, () => Math.random() - 0.5),
  )
  for (const level of LEVELS) {
    const graph = model([
      ...weights.flatMap((weight, i) => matMulNbits(`w${i}`, 'x', `y${i}`, weight, level)),
      node(
        'Sum',
        weights.map((_, i) => `y${i}`),
        ['y'],
      ),
      ...[input('x', 'f32', [batch, columns]), output('y', 'f32', [batch, rows])],
    ])
    put(`level-${level}.onnx`, graph)
  }
}
