/**
 * Does peak memory grow with the number of blocks? Writes synthetic Llamas of 6, 12 and 22 blocks (the last
 * has 1.1 billion weights), quantizes each by RTN and with one block of GPTQ, and prints the curve
 * as it stands in the pipeline's README. Needs about 8 GB of disk in the temporary folder.
 */

import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { writeSynthetic } from './synthetic.ts'

interface Row {
  readonly blocks: number
  /** Millions. */
  readonly weights: number
  readonly method: string
  /** Peak resident memory in MB. */
  readonly memory: number
  readonly seconds: number
}

const place = await mkdtemp(path.join(tmpdir(), 'lowbit-memory-'))
const rows: Row[] = []
try {
  for (const blocks of [6, 12, 22]) {
    const folder = path.join(place, `${blocks}`)
    const weights = await writeSynthetic(folder, blocks)
    for (const method of ['rtn', 'gptq']) {
      const out = path.join(place, 'out')
      const script = path.join(import.meta.dirname, 'measure.ts')
      const printed = execFileSync(process.execPath, [script, folder, out, method], {
        encoding: 'utf8',
      })
      const { seconds, peakMemoryBytes } = JSON.parse(printed)
      rows.push({
        blocks,
        weights: Math.round(weights / 1e6),
        method: method === 'gptq' ? 'gptq in block 0, rtn in the rest' : 'rtn',
        memory: Math.round(peakMemoryBytes / 1e6),
        seconds: Math.round(seconds),
      })
      console.error(rows.at(-1))
      await rm(out, { recursive: true })
    }
    await rm(folder, { recursive: true })
  }
} finally {
  await rm(place, { recursive: true, force: true })
}
if (process.argv.includes('--json')) console.log(JSON.stringify(rows))
else console.log(curve(rows))

/** A line for each run, with a bar of its memory. */
function curve(measured: readonly Row[]): string {
  const most = Math.max(...measured.map(({ memory }) => memory))
  const lines = measured.map(({ blocks, weights, method, memory, seconds }) => {
    const bar = '█'.repeat(Math.round((memory / most) * 24))
    return `| ${method} | ${blocks} | ${weights} | ${memory} | ${bar} | ${seconds} |`
  })
  return [
    '| method | blocks | million weights | peak MB | | s |',
    '| --- | --- | --- | --- | --- | --- |',
    ...lines.toSorted((a, b) => Number(a.includes('gptq')) - Number(b.includes('gptq'))),
  ].join('\n')
}
