/**
 * Does peak memory grow with the number of blocks? Writes synthetic Llamas of 6, 12 and 22 blocks (the last
 * has 1.1 billion weights), quantizes each by RTN and with one block of GPTQ, and prints the curve.
 * Needs about 8 GB of disk in the temporary folder.
 */

import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { writeSynthetic } from './synthetic.ts'

const place = await mkdtemp(path.join(tmpdir(), 'lowbit-memory-'))
const rows = []
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
        'weights (millions)': Math.round(weights / 1e6),
        method: method === 'gptq' ? 'gptq in block 0, rtn in the rest' : 'rtn',
        'peak memory (MB)': Math.round(peakMemoryBytes / 1e6),
        seconds: Math.round(seconds),
      })
      console.table(rows.slice(-1))
      await rm(out, { recursive: true })
    }
    await rm(folder, { recursive: true })
  }
} finally {
  await rm(place, { recursive: true, force: true })
}
console.table(rows)
if (process.argv.includes('--json')) console.log(JSON.stringify(rows))
