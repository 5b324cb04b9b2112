/** From nothing to the first token of the demo, through the CLI. */

import { spawn } from 'node:child_process'
import path from 'node:path'
import { type Contestant, cpuSeconds, interleave } from '../measure.ts'
import type { Row } from '../report.ts'
import type { Settings } from '../settings.ts'

const CLI = path.resolve(import.meta.dirname, '../../../../apps/cli/src/main.ts')

/** A process that makes one token and reports its own CPU seconds as it ends. */
const REPORT = `process.on('exit', () => {
  const { userCPUTime, systemCPUTime } = process.resourceUsage()
  process.stderr.write('\\nCPU ' + (userCPUTime + systemCPUTime) / 1e6 + '\\n')
})`

export async function start({ threads, rounds }: Settings): Promise<Row[]> {
  const contestant: Contestant = {
    name: 'lowbit',
    async once() {
      const begun = performance.now()
      const preload = `data:text/javascript,${encodeURIComponent(REPORT)}`
      const args = ['--import', preload, CLI, 'generate', 'demo', 'And it came to pass']
      const child = spawn(process.execPath, [...args, '-n', '1', '--threads', `${threads}`], {
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let wall = 0
      let errors = ''
      child.stdout.on('data', (chunk: Buffer) => {
        if (wall === 0 && chunk.length > 0) wall = (performance.now() - begun) / 1000
      })
      child.stderr.on('data', (chunk) => {
        errors += chunk
      })
      const code = await new Promise((resolve) => child.once('close', resolve))
      if (code !== 0) throw new Error(`the CLI ended with ${code}: ${errors.trim()}`)
      return { wall, cpu: Number(errors.match(/CPU ([\d.]+)/)?.[1] ?? cpuSeconds()) }
    },
  }
  const [{ wall, cpu }] = await interleave([contestant], rounds)
  return [
    {
      ...{ what: 'demo through the CLI, cold to first token', who: 'lowbit', unit: 'starts' },
      ...{ perCpuSecond: 1 / cpu, perSecond: 1 / wall },
      note: `${wall.toFixed(2)} s, ${cpu.toFixed(2)} CPU s`,
    },
  ]
}
