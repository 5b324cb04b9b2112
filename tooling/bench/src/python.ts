/** The peers that are Python: their scripts are run where there is a Python with what they need. */

import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { median } from './measure.ts'
import { Skip } from './peers.ts'
import type { Settings } from './settings.ts'

const SCRIPTS = path.join(import.meta.dirname, 'python')

/** What a script measured: the median CPU seconds of each of its lines' names. Throws a Skip with the reason. */
export function runPython(
  { python, threads }: Settings,
  script: string,
  args: readonly string[],
): ReadonlyMap<string, number> {
  if (!python) throw new Skip('needs --python or LOWBIT_PYTHON')
  const { stdout, stderr, status, error } = spawnSync(
    python,
    [path.join(SCRIPTS, script), ...args],
    {
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
      env: {
        ...process.env,
        TQDM_DISABLE: '1',
        OMP_NUM_THREADS: `${threads}`,
        PYTHONDONTWRITEBYTECODE: '1',
      },
    },
  )
  if (error) throw new Skip(error.message)
  if (status !== 0) throw new Skip(stderr.trim().split('\n').at(-1) ?? 'the script failed')
  const seen = new Map<string, number[]>()
  for (const line of stdout.split('\n')) {
    if (!line.startsWith('{')) continue
    const { what, cpu } = JSON.parse(line) as { what: string; cpu: number }
    seen.set(what, [...(seen.get(what) ?? []), cpu])
  }
  return new Map([...seen].map(([what, cpu]) => [what, median(cpu)]))
}
