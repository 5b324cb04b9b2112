/** A recipe and a checkpoint → a smaller checkpoint, one block at a time. */

import { type Entry, inProcess, LowbitError, type Matrix, type Tensor } from '@lowbit/core'
import {
  assemble,
  type Described,
  dropParts,
  jsonBytes,
  openPart,
  writePart,
} from '@lowbit/formats'
import {
  attendWithin,
  type BlockContext,
  blockNames,
  loadBlock,
  loadRope,
  type Opened,
  openDecoder,
  runBlock,
  unloadBlock,
} from '@lowbit/model'
import { type Assignment, assignQuantizers, makeTuner } from '../recipe/resolve.ts'
import { endToEnd } from '../tune/end-to-end.ts'
import { TUNED, tuneParts } from '../tune/tune-parts.ts'
import { breathe } from './breathe.ts'
import { embedWindows } from './embed.ts'
import { asksForFisher, dropFisher, measureFisher, readFisher } from './fisher.ts'
import { finishedReport, jobFingerprint, openJournal, REPORT } from './identity.ts'
import type { QuantizeJob } from './job.ts'
import { blockPart, type Journal, removeJournal, writeJournal } from './journal.ts'
import { newConfig } from './new-config.ts'
import { prepareQuantizers } from './prepare.ts'
import { progressOf } from './progress.ts'
import { quantizeBlock, quantizeMatrix } from './quantize-block.ts'
import type { ModuleReport, QuantizeReport } from './report.ts'

/** The part that holds everything outside the blocks. */
const REST = 'rest'
/** Of residual streams and of activations that are kept from one step of a block to the next. */
const KEPT_BYTES = 288e6

export async function quantizeModel(job: QuantizeJob): Promise<QuantizeReport> {
  const { checkpoint, kernels, folder, format, signal } = job
  const opened = openDecoder(checkpoint, kernels)
  const { config } = opened
  const blockModules = new Set<string>()
  for (let layer = 0; layer < config.layers; layer++) {
    for (const module of blockNames(config.architecture, layer).modules.values()) {
      blockModules.add(module)
    }
  }
  const missing = [...blockModules].find((module) => !checkpoint.hasModule(module))
  if (missing) {
    throw new LowbitError('missing-tensor', 'the checkpoint lacks a weight of its blocks', {
      tensor: `${missing}.weight`,
      file: checkpoint.location,
    })
  }
  const assigned = assignQuantizers(job.recipe, job.quantizers, checkpoint.modules, blockModules)
  const windows = calibrationFor(job, opened, assigned, blockModules)
  const tuner = makeTuner(job.recipe, job.tuners ?? [endToEnd])
  const print = await jobFingerprint(job, opened, assigned, windows, tuner)
  const layers = Array.from({ length: config.layers }, (_, layer) => layer)
  const parts = [...layers.map(blockPart), REST]
  const announce = (resumed: number): void =>
    job.onEvent?.({ kind: 'start', parts: parts.length, modules: assigned.size, resumed })
  const whole = await finishedReport(job, print)
  if (whole) {
    announce(parts.length)
    await dropFisher(job, layers)
    await dropParts(folder, [...parts, TUNED])
    await removeJournal(folder)
    return whole
  }
  const journal = await openJournal(job, print)
  announce(Object.keys(journal.parts).length)
  const quantizers = await prepareQuantizers(job, opened, assigned)
  const progress = progressOf([
    ...(asksForFisher(quantizers) ? (['gradients'] as const) : []),
    'blocks',
    ...(tuner ? (['tuning'] as const) : []),
  ])
  await measureFisher(job, opened, journal, quantizers, windows, (what, inside) =>
    job.onEvent?.({
      ...{ kind: 'step', part: 'gradients', what, done: progress('gradients', inside) },
    }),
  )

  const lastCalibrated = windows.length > 0 ? lastWithStatistics(opened, quantizers) : -1
  const context: BlockContext = {
    kernels,
    config,
    ...loadRope(opened, Math.max(1, ...windows.map(({ length }) => length))),
  }
  const streams = lastCalibrated >= 0 ? await embedWindows(opened, windows) : []
  const { target, trueSequential } = job.recipe.calibration
  // A block that is measured at once, before any of it is quantized, has nothing to aim from.
  const aims = target === 'original' && trueSequential && lastCalibrated >= 0
  const originals = aims ? await embedWindows(opened, windows) : []
  for (let layer = 0; layer < config.layers; layer++) {
    signal?.throwIfAborted()
    const part = blockPart(layer)
    const started = performance.now()
    // Past the last block that asks for statistics nobody needs the activations any more.
    const live = layer <= lastCalibrated ? streams : []
    const untouched = layer <= lastCalibrated ? originals : []
    const share = (inside: number): number => progress('blocks', (layer + inside) / parts.length)
    const finished = journal.parts[part]
    if (finished) {
      if (layer < lastCalibrated) {
        job.onEvent?.({ kind: 'step', part, what: 'running the finished block', done: share(0) })
        await replayBlock(job, opened, context, layer, finished.described, live)
        await runOriginal(job, opened, context, layer, untouched)
      }
    } else {
      const { entries, reports } = await quantizeBlock({
        opened,
        context,
        layer,
        quantizers,
        executor: job.executor ?? inProcess(),
        seed: job.recipe.seed,
        trueSequential: job.recipe.calibration.trueSequential,
        streams: live,
        originals: untouched,
        fisher: (module) => readFisher(job, layer, module),
        keptBytes: (job.keptBytes ?? KEPT_BYTES) / (untouched.length > 0 ? 2 : 1),
        signal,
        onStep: (what, inside) => job.onEvent?.({ kind: 'step', part, what, done: share(inside) }),
        onModule: (report, seconds) => job.onEvent?.({ kind: 'module', report, seconds }),
      })
      const vectors = await blockVectors(opened, layer)
      await finishPart(job, journal, part, [...entries, ...vectors], reports)
      await dropFisher(job, [layer])
    }
    job.onEvent?.({
      kind: 'part',
      part,
      done: share(1),
      seconds: (performance.now() - started) / 1000,
    })
  }
  kernels.free(...streams, ...originals, context.cos, context.sin)
  if (!journal.parts[REST]) await quantizeRest(job, journal, quantizers, blockModules)

  if (tuner) {
    await tuneParts({ ...job, tuner }, opened, journal, windows, parts, (what, inside) =>
      job.onEvent?.({
        ...{ kind: 'step', part: 'tuning', what, done: progress('tuning', inside) },
      }),
    )
  }

  const described = Object.assign({}, ...parts.map((part) => journal.parts[part].described))
  const bytes = await assemble({
    folder,
    parts,
    config: newConfig(checkpoint.config, format, described),
    maxShardBytes: job.maxShardBytes,
    signal,
  })
  const report = summarize(job, journal, parts, bytes, windows)
  for (const name of checkpoint.files) {
    await folder.write(name, [await checkpoint.readFile(name)], signal)
  }
  // The last file of all: with it the checkpoint is whole, whatever happens to the parts and the journal.
  await folder.write(REPORT, [jsonBytes({ ...report, fingerprint: print })], signal)
  await dropFisher(job, layers)
  await dropParts(folder, [...parts, TUNED])
  await removeJournal(folder)
  return report
}

function calibrationFor(
  job: QuantizeJob,
  { config }: Opened,
  quantizers: Assignment,
  blockModules: ReadonlySet<string>,
): readonly (readonly number[])[] {
  const asking = [...quantizers].find(([, { needs }]) => needs.hessian || needs.fisher)
  if (!asking) return []
  const outside = [...quantizers].find(
    ([module, { needs }]) => (needs.hessian || needs.fisher) && !blockModules.has(module),
  )
  if (outside) {
    throw new LowbitError(
      'bad-recipe',
      `${outside[1].name} needs calibration, which exists for the linears of blocks only; use rtn for ${outside[0]}`,
      { tensor: outside[0] },
    )
  }
  const windows = job.calibration ?? []
  if (windows.length === 0) {
    throw new LowbitError(
      'bad-option',
      `${asking[1].name} needs a calibration text; give one with --calibration FILE`,
      { option: 'calibration' },
    )
  }
  const longest = Math.max(...windows.map(({ length }) => length))
  if (longest > config.context) {
    throw new LowbitError(
      'bad-option',
      `calibration windows of ${longest} tokens are longer than the model's context of ${config.context}`,
      { option: 'length' },
    )
  }
  return windows
}

function lastWithStatistics({ config }: Opened, quantizers: Assignment): number {
  for (let layer = config.layers - 1; layer >= 0; layer--) {
    const { modules } = blockNames(config.architecture, layer)
    for (const module of modules.values()) {
      if (quantizers.get(module)?.needs.hessian) return layer
    }
  }
  return -1
}

/** Brings the residual stream past a block that an earlier run quantized. */
async function replayBlock(
  { folder, format, signal }: QuantizeJob,
  opened: Opened,
  context: BlockContext,
  layer: number,
  described: Described,
  streams: readonly Tensor[],
): Promise<void> {
  const { kernels, checkpoint } = opened
  const config = newConfig(checkpoint.config, format, described)
  const part = await openPart(folder, blockPart(layer), config)
  const block = await loadBlock({ ...opened, checkpoint: part }, layer)
  await part.close()
  for (const x of streams) {
    runBlock(context, block, x, attendWithin(context))
    await breathe()
    signal?.throwIfAborted()
  }
  unloadBlock(kernels, block)
}

/** The same with the block as it was. */
async function runOriginal(
  { signal }: QuantizeJob,
  opened: Opened,
  context: BlockContext,
  layer: number,
  streams: readonly Tensor[],
): Promise<void> {
  if (streams.length === 0) return
  const block = await loadBlock(opened, layer)
  for (const x of streams) {
    runBlock(context, block, x, attendWithin(context))
    await breathe()
    signal?.throwIfAborted()
  }
  unloadBlock(opened.kernels, block)
}

/** Names that the norms and biases of one block may have. */
function vectorNames({ config }: Opened, layer: number): string[] {
  const { attentionNorm, mlpNorm, modules } = blockNames(config.architecture, layer)
  const owners = [attentionNorm, mlpNorm, ...modules.values()]
  return owners.flatMap((owner) => [`${owner}.weight`, `${owner}.bias`])
}

function vectorsOfBlocks(opened: Opened): Set<string> {
  const layers = Array.from({ length: opened.config.layers }, (_, layer) => layer)
  return new Set(layers.flatMap((layer) => vectorNames(opened, layer)))
}

async function blockVectors(opened: Opened, layer: number): Promise<Entry[]> {
  const { checkpoint } = opened
  const entries: Entry[] = []
  for (const vector of vectorNames(opened, layer)) {
    if (checkpoint.hasVector(vector))
      entries.push({ vector, value: await checkpoint.readVector(vector) })
  }
  return entries
}

async function finishPart(
  { folder, format, signal }: QuantizeJob,
  journal: Journal,
  part: string,
  entries: readonly Entry[],
  modules: readonly ModuleReport[],
): Promise<void> {
  const described = await writePart(folder, part, entries, format, signal)
  journal.parts[part] = { described, modules }
  await writeJournal(folder, journal)
}

/** Embedding, head, final norm, and whatever else the checkpoint holds. */
async function quantizeRest(
  job: QuantizeJob,
  journal: Journal,
  quantizers: Assignment,
  blockModules: ReadonlySet<string>,
): Promise<void> {
  const { checkpoint, kernels, recipe, signal } = job
  const entries: Entry[] = []
  const reports: ModuleReport[] = []
  for (const module of checkpoint.modules) {
    if (blockModules.has(module)) continue
    signal?.throwIfAborted()
    const original = await checkpoint.readMatrix(module)
    const quantizer = quantizers.get(module)
    let matrix: Matrix = original
    if (quantizer) {
      const started = performance.now()
      const done = await quantizeMatrix({
        kernels,
        quantizer,
        module,
        original,
        seed: recipe.seed,
        signal,
      })
      matrix = done.matrix
      kernels.unload(done.weight)
      reports.push(done.report)
      const seconds = (performance.now() - started) / 1000
      job.onEvent?.({ kind: 'module', report: done.report, seconds })
    }
    entries.push({ module, matrix })
  }
  const ofBlocks = vectorsOfBlocks(openDecoder(checkpoint, kernels))
  for (const vector of checkpoint.vectors) {
    if (!ofBlocks.has(vector)) entries.push({ vector, value: await checkpoint.readVector(vector) })
  }
  for (const tensor of checkpoint.rest) {
    entries.push({ tensor, raw: await checkpoint.readRaw(tensor) })
  }
  await finishPart(job, journal, REST, entries, reports)
}

function summarize(
  { recipe }: QuantizeJob,
  journal: Journal,
  parts: readonly string[],
  bytes: number,
  windows: readonly (readonly number[])[],
): QuantizeReport {
  const modules = parts.flatMap((part) => journal.parts[part].modules)
  const weights = modules.reduce((sum, { rows, columns }) => sum + rows * columns, 0)
  const bits = modules.reduce((sum, m) => sum + m.bits * m.rows * m.columns, 0)
  const tables: Record<string, number> = Object.assign({}, ...modules.map(({ shared }) => shared))
  const shared = Object.values(tables).reduce((sum, each) => sum + each, 0)
  return {
    modules,
    bitsPerWeight: weights > 0 ? (bits + shared) / weights : 16,
    sharedBitsPerWeight: weights > 0 ? shared / weights : 0,
    quantizedWeights: weights,
    bytes,
    calibrationTokens: windows.reduce((sum, { length }) => sum + length, 0),
    ...(recipe.cache && { cache: recipe.cache }),
  }
}
