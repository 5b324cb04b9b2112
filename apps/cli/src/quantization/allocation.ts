/** `--target-bits`: each matrix its own number of bits, so that they meet a mean. */

import { type Kernels, LowbitError, type Quantizer, type QuantizerPlugin } from '@lowbit/core'
import { linearsOfBlocks, percent } from '@lowbit/inspection'
import {
  type Allocation,
  allocateBits,
  allocationRange,
  assignQuantizers,
  makeQuantizer,
  measureSensitivity,
  type Recipe,
  type Sensitivity,
} from '@lowbit/pipeline'
import type { OpenedModel } from '../model-source/open-model.ts'
import { QUANTIZERS } from '../plugins.ts'
import type { Session } from '../session.ts'
import { type Column, table } from '../terminal/table.ts'

/** Options that make a method's measuring quicker and leave what is measured as it is. */
const PLAIN: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  palettize: { feedback: false },
}

/** Numbers of bits that are tried; a method takes those that its schema allows. */
const BITS = [1, 2, 3, 4, 5, 6, 7, 8]
/** Points of the trade-off that are shown. */
const POINTS = 8

export interface AllocationJob {
  readonly model: OpenedModel
  /** With one rule, without bits. */
  readonly recipe: Recipe
  readonly target: number
  readonly calibration?: readonly (readonly number[])[]
  readonly kernels: Kernels
}

export interface ChosenBits {
  readonly target: number
  /** Counted mean of what was chosen. */
  readonly bitsPerWeight: number
  /** Share of a matrix's weighed power that plain rounding loses, the mean over weights. */
  readonly loss: number
  /** The best at several means, the one that was chosen among them. */
  readonly curve: readonly { readonly bits: number; readonly loss: number }[]
  readonly modules: readonly { readonly module: string; readonly bits: number }[]
}

/** Refuses what can't be allocated before a model is opened. */
export function refuseAllocation(
  plugin: QuantizerPlugin,
  options: Readonly<Record<string, unknown>>,
): void {
  const refuse = (why: string): never => {
    throw new LowbitError('bad-option', why, { option: 'target-bits' })
  }
  if (!('bits' in plugin.options.shape)) {
    const able = QUANTIZERS.filter(({ options }) => 'bits' in options.shape)
    refuse(
      `--target-bits chooses a number of bits for each matrix, which ${plugin.name} has no option for; methods that have one: ${able.map(({ name }) => name).join(', ')}`,
    )
  }
  if ('bits' in options)
    refuse('--target-bits contradicts --bits: it finds the bits of each matrix')
  if (candidatesFor(plugin.name, options).length < 2) {
    // Says why, in the method's own words.
    makeQuantizer(QUANTIZERS, plugin.name, { ...options, bits: 4 })
    refuse(`--target-bits: with these options ${plugin.name} leaves no number of bits to choose`)
  }
}

/** A recipe with a rule for each number of bits that was chosen, and how it was. */
export async function allocate(
  job: AllocationJob,
  session: Session,
): Promise<{ recipe: Recipe; chosen: ChosenBits }> {
  const { model, recipe, target } = job
  const { match: _, method, ...options } = recipe.rules[0]
  const measured = await measure(job, method, options, session)
  const best = allocateBits(measured, target)
  const weights = measured.reduce((sum, one) => sum + one.weights, 0)
  const bits = new Map<number, string[]>()
  for (const [module, choice] of best.choices) {
    bits.set(choice.bits, [...(bits.get(choice.bits) ?? []), module])
  }
  const rules = [...bits]
    .sort(([a], [b]) => a - b)
    .map(([each, match]) => ({ match, method, ...options, bits: each }))
  session.signal.throwIfAborted()
  const share = ({ bitsPerWeight, loss }: Allocation) => {
    return { bits: bitsPerWeight, loss: loss / weights }
  }
  const modules = [...best.choices].map(([module, choice]) => ({ module, bits: choice.bits }))
  const order = new Map(model.checkpoint.modules.map((module, i) => [module, i]))
  modules.sort((a, b) => order.get(a.module)! - order.get(b.module)!)
  return {
    recipe: { ...recipe, rules },
    chosen: {
      ...{ target, bitsPerWeight: best.bitsPerWeight, loss: share(best).loss, modules },
      curve: curveAround(measured, best).map(share),
    },
  }
}

/** The trade-off as a table, the choice marked. */
export function tradeOffTable({ curve, bitsPerWeight }: ChosenBits): string {
  return table(
    [right('bits per weight'), right('loss of plain rounding'), ''],
    curve.map(({ bits, loss }) => [
      bits.toFixed(3),
      percent(loss),
      bits === bitsPerWeight ? '← chosen' : '',
    ]),
  )
}

const right = (title: string): Column => ({ title, align: 'right' })

async function measure(
  { model, recipe, calibration, kernels }: AllocationJob,
  method: string,
  options: Readonly<Record<string, unknown>>,
  session: Session,
): Promise<Sensitivity[]> {
  const { checkpoint } = model
  const inBlocks = new Set(linearsOfBlocks(checkpoint))
  const assigned = assignQuantizers(recipe, QUANTIZERS, checkpoint.modules, inBlocks)
  const outside = [...assigned.keys()].find((module) => !inBlocks.has(module))
  if (outside) {
    throw new LowbitError(
      'bad-option',
      `--target-bits measures the linears of blocks, and --match also means ${outside}; narrow it`,
      { option: 'match', tensor: outside },
    )
  }
  const progress = session.progress('measuring')
  return measureSensitivity({
    ...{ checkpoint, kernels, seed: recipe.seed, signal: session.signal },
    modules: new Set(assigned.keys()),
    candidates: candidatesFor(method, options),
    windows: calibration ?? [],
    onProgress: (done, module) => progress.update(done, module),
  }).finally(progress.end)
}

/** A quantizer for each number of bits that a method's options allow. */
function candidatesFor(
  method: string,
  options: Readonly<Record<string, unknown>>,
): { bits: number; quantizer: Quantizer }[] {
  return BITS.flatMap((bits) => {
    const all = { ...options, ...PLAIN[method], bits }
    try {
      return [{ bits, quantizer: makeQuantizer(QUANTIZERS, method, all) }]
    } catch (error) {
      if (error instanceof LowbitError) return []
      throw error
    }
  })
}

/** Evenly spaced targets from the least bits to the most, and the one that was chosen in between. */
function curveAround(measured: readonly Sensitivity[], best: Allocation): Allocation[] {
  const [least, most] = allocationRange(measured)
  const targets = Array.from(
    { length: POINTS },
    (_, i) => least + (i / (POINTS - 1)) * (most - least),
  )
  const all = [best, ...targets.map((target) => allocateBits(measured, target))]
  const byBits = new Map(all.map((one) => [one.bitsPerWeight, one]))
  return [...byBits.values()].sort((a, b) => a.bitsPerWeight - b.bitsPerWeight)
}
