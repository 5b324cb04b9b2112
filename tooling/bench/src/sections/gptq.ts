/**
 * GPTQ of all of SmolLM2 at 3 bits in groups of 128, against GPTQModel on the same tokens: aimed at the original's
 * outputs, the default, for which the original runs beside, and at each layer's own, which is what GPTQModel does.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { FORMATS, openFolder } from '@lowbit/formats'
import { nodeFolder } from '@lowbit/formats/node'
import { cpu } from '@lowbit/kernels-cpu'
import { calibrationWindows, loadTokenizer } from '@lowbit/model'
import { parseRecipe, quantizeModel } from '@lowbit/pipeline'
import { gptq as gptqPlugin } from '@lowbit/quantizer-gptq'
import { timed, type Usage } from '../measure.ts'
import type { Row } from '../report.ts'
import { type Settings, smollm2Folder } from '../settings.ts'

const WINDOW = 2048

export async function gptq(settings: Settings): Promise<Row[]> {
  const rows: Row[] = []
  const { windows } = settings
  for (const samples of windows ? [windows] : settings.quick ? [2] : [8, 32]) {
    const what = `GPTQ 3-bit g128 of SmolLM2, ${(samples * WINDOW).toLocaleString('en')} tokens`
    const ours = new Map<Target, Usage>()
    for (const target of ['original', 'layer'] as const) {
      ours.set(target, await quantize(settings, samples, target))
      console.error(`  ${target}, ${samples} windows: ${ours.get(target)!.cpu.toFixed(0)} CPU s`)
    }
    const theirs = settings.quick ? 'quick' : gptqModel(settings, samples)
    for (const [target, usage] of ours) {
      const ratio = typeof theirs === 'string' ? undefined : theirs.cpu / usage.cpu
      rows.push({ ...row(what, `lowbit, target ${target}`, usage), ratio })
    }
    if (typeof theirs === 'string') {
      rows.push({ what, who: 'GPTQModel', unit: '', note: `skipped: ${theirs}` })
    } else rows.push(row(what, 'GPTQModel', theirs))
  }
  return rows
}

const row = (what: string, who: string, { wall, cpu }: Usage): Row => ({
  ...{ what, who, unit: 'runs', perCpuSecond: 1 / cpu, perSecond: 1 / wall },
  note: `${cpu.toFixed(0)} CPU s, ${wall.toFixed(0)} s`,
})

type Target = 'original' | 'layer'

async function quantize(settings: Settings, samples: number, target: Target): Promise<Usage> {
  if (!settings.calibration) throw new Error('needs --calibration FILE or LOWBIT_CALIBRATION')
  const kernels = await cpu({ threads: settings.threads, wide: true })
  const checkpoint = await openFolder(nodeFolder(path.join(smollm2Folder(settings), 'hf')))
  const tokenizer = await loadTokenizer(checkpoint)
  const text = (await readFile(settings.calibration, 'utf8')).slice(0, samples * WINDOW * 8)
  const calibration = calibrationWindows(tokenizer.encode(text), samples, WINDOW)
  const folder = mkdtempSync(path.join(settings.work, 'gptq-'))
  try {
    return await timed(() =>
      quantizeModel({
        checkpoint,
        kernels,
        recipe: parseRecipe({
          rules: [{ method: 'gptq', bits: 3, groupSize: 128 }],
          calibration: { target },
        }),
        quantizers: [gptqPlugin],
        format: FORMATS.find(({ name }) => name === 'lowbit')!,
        calibration,
        folder: nodeFolder(folder),
      }),
    )
  } finally {
    await checkpoint.close()
    rmSync(folder, { recursive: true })
    kernels.dispose()
  }
}

/** A run of the script, or the output of a finished one, for as many tokens; or why there is none. */
function gptqModel({ gptqmodel, smollm2, work }: Settings, samples: number): Usage | string {
  const { log, python, script, data } = gptqmodel
  let printed: string
  if (log) printed = readFileSync(log, 'utf8')
  else if (python && script && data) {
    const { stdout, stderr, status } = spawnSync(python, [script, 'gptq', '3', '128', 'aware'], {
      cwd: path.dirname(script),
      encoding: 'utf8',
      maxBuffer: 2 ** 28,
      env: {
        ...process.env,
        ...{ MODEL_DIR: path.join(smollm2 ?? '', 'hf'), DATA_DIR: data, WORK_DIR: work },
        // Its pools ask for two workers; with one torch thread each.
        ...{ SEQS: `${samples}`, OMP_NUM_THREADS: '1', GPTQMODEL_CPU_WORKERS: '2' },
      },
    })
    if (status !== 0) return stderr.trim().split('\n').at(-1) ?? 'the script failed'
    printed = stdout
  } else {
    return 'needs --gptqmodel-log FILE, or LOWBIT_GPTQMODEL_PYTHON, _SCRIPT and _DATA'
  }
  const found = (key: string) => Number(printed.match(new RegExp(`'${key}': ([\\d.]+)`))?.[1])
  const tokens = found('calib_tokens')
  if (tokens !== samples * WINDOW) return `the log is of ${tokens} tokens`
  return { wall: found('wall_s'), cpu: found('cpu_s') }
}
