/**
 * Palettes: a table of values for a matrix or for groups of its channels, found by exact weighted k-means, and for
 * every weight the code of one of them. A palette is an element-wise grid, so GPTQ's feedback pass can assign it:
 * that is the default where there is calibration.
 */

import {
  assertFinite,
  definePlugin,
  type Kernels,
  packCodes,
  type QuantizedMatrix,
  type QuantizeInput,
  type Quantizer,
  type SparseEntries,
  type Tensor,
} from '@lowbit/core'
import {
  type Assignment,
  assignNearest,
  assignWithFeedback,
  descend,
  prepareFeedback,
} from './assign.ts'
import { train } from './dkm/train.ts'
import { type Importance, importanceOf } from './importance.ts'
import {
  bitsFor,
  type PaletteScheme,
  paletteBlocks,
  paletteScheme,
  palettizeOptions,
  trains,
} from './options.ts'
import { chooseOutliers, splitWeight, without } from './outliers.ts'
import { fitTables } from './tables/fit.ts'
import { refitTables } from './tables/refit.ts'
import { type StoredTables, storeTables } from './tables/stored.ts'
import { makeVectorPalette } from './vectors.ts'

export const palettize = definePlugin(
  {
    name: 'palettize',
    summary: 'palettes by exact weighted k-means, assigned with error feedback',
    source: 'coremltools; k-means: Grønlund et al., 1701.07204; sensitive: SqueezeLLM, 2306.07629',
    options: palettizeOptions,
  },
  (options): Quantizer => {
    const scheme = paletteScheme(options)
    return {
      kind: 'quantizer',
      name: 'palettize',
      options,
      needs: scheme.needs,
      label: scheme.label,
      quantize: (input) => makePalette(input, scheme),
    }
  },
)

/** Sweeps of coordinate descent after each refit. */
const REFIT_SWEEPS = 2

async function makePalette(input: QuantizeInput, scheme: PaletteScheme): Promise<QuantizedMatrix> {
  const { kernels, weight, name, signal } = input
  const { rows, columns } = weight
  const blocks = paletteBlocks(scheme, rows, columns)
  await assertFinite(kernels, weight, name)
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const importance = await importanceOf(input, scheme, own)
    signal?.throwIfAborted()
    if (scheme.clusterDim > 1) return await makeVectorPalette(input, scheme, importance, own)
    const needsValues = scheme.feedback || scheme.outliers > 0
    const work: Work = {
      ...{ input, scheme, blocks, importance, own },
      codes: own(kernels.tensor(rows, columns, 'u8')),
      ...(needsValues && { decoded: own(kernels.tensor(rows, columns)) }),
    }
    const fitted = await (scheme.outliers > 0 ? fitWithoutOutliers(work) : fitPalette(work))
    signal?.throwIfAborted()
    const { rowScale, sparse } = fitted
    const stored = await assign(work, fitted)
    signal?.throwIfAborted()
    const codes = await kernels.readCodes(work.codes)
    return {
      rows,
      columns,
      stages: [
        {
          codes: packCodes(codes, bitsFor(stored.grid.entries)),
          vector: { length: 1, along: 'in' },
          grid: stored.grid,
          ...(stored.zeros && { zero: { blocks, values: stored.zeros } }),
          ...(rowScale && {
            scale: {
              blocks: { rows: 1, columns },
              values: { type: 'f16', values: await kernels.read(rowScale) },
            },
          }),
        },
      ],
      ...(sparse && { sparse }),
    }
  } finally {
    kernels.free(...owned)
  }
}

interface Work {
  readonly input: QuantizeInput
  readonly scheme: PaletteScheme
  readonly blocks: { readonly rows: number; readonly columns: number }
  readonly importance: Importance
  readonly own: (tensor: Tensor) => Tensor
  /** What is being made: u8 codes, and their values where anything goes on from them. */
  readonly codes: Tensor
  readonly decoded?: Tensor
}

interface Palette {
  readonly stored: StoredTables
  /** What the codes are to approximate: the weight, or what outliers have left of it. */
  readonly weight: Tensor
  readonly rowScale?: Tensor
  readonly sparse?: SparseEntries
}

async function fitPalette(
  { input, scheme, blocks, importance, own }: Work,
  mostOfRows = input.weight,
): Promise<Palette> {
  const { kernels, weight } = input
  const rowScale = scheme.perChannelScale ? own(fitRowScales(kernels, mostOfRows)) : undefined
  const tables = own(await fitTables({ ...input, scheme, blocks, importance, rowScale }))
  const values = await kernels.read(tables)
  const stored = storeTables(values, tables.columns, scheme.tableType, blocks)
  return { stored, weight, rowScale }
}

/** A first palette shows which weights lose most; the second is fitted without them. */
async function fitWithoutOutliers(work: Work): Promise<Palette> {
  const { input, scheme, importance, own } = work
  const { kernels, weight } = input
  const decoded = work.decoded!
  assignPlainly(work, await fitPalette(work))
  const { tensor } = importance
  const choice = { kernels, weight, decoded, importance: tensor, share: scheme.outliers }
  const places = await chooseOutliers(choice)
  if (places.length === 0) return fitPalette(work)
  const rest = own(await without(kernels, tensor, weight, places))
  const inliers = own(await without(kernels, weight, weight, places))
  const second = await fitPalette({ ...work, importance: { ...importance, tensor: rest } }, inliers)
  assignPlainly(work, second)
  const split = await splitWeight(kernels, weight, decoded, places)
  return { ...second, weight: own(split.rest), sparse: split.sparse }
}

function assignPlainly({ input, codes, decoded }: Work, palette: Palette): StoredTables {
  assignNearest(assignment(input, palette, palette.stored), codes, decoded)
  return palette.stored
}

/** Nearest values of the weights, or of what training has made of them. */
async function assignFirst(work: Work, palette: Palette): Promise<StoredTables> {
  const { input, scheme, blocks, importance, codes, decoded } = work
  const { mode, tableType } = scheme
  const { stored, weight, rowScale } = palette
  if (!trains(mode)) return assignPlainly(work, palette)
  const { kernels, hessian, seed, signal } = input
  const { entries } = stored.grid
  const { steps, rate, temperature, iterations } = scheme
  const { tables, latent } = await train(
    {
      ...{ kernels, weight, hessian: hessian!, rowScale, groupRows: blocks.rows, mode },
      importance: importance.tensor,
      ...{ steps, rate, temperature, iterations, seed, signal },
    },
    stored.meaning.tables.values,
    entries,
  )
  const trained = storeTables(tables, entries, tableType, blocks)
  assignNearest(assignment(input, { ...palette, weight: latent }, trained), codes, decoded)
  kernels.free(latent)
  return trained
}

/** Codes by the feedback pass or by training; then codes and tables in turn, each the best for the other. */
async function assign(work: Work, palette: Palette): Promise<StoredTables> {
  const { input, scheme, blocks, importance, codes, own } = work
  const { kernels, signal } = input
  const { weight, rowScale } = palette
  if (!scheme.feedback) return assignFirst(work, palette)
  const decoded = work.decoded!
  let { stored } = palette
  const { entries } = stored.grid
  const feedback = await prepareFeedback(input, scheme, importance.diagonal!)
  own(feedback.factor)
  if (trains(scheme.mode)) stored = await assignFirst(work, palette)
  else assignWithFeedback(assignment(input, palette, stored), feedback, codes, decoded)
  descend(assignment(input, palette, stored), feedback, scheme.sweeps, codes, decoded)
  const places = { blockRows: blocks.rows, blockColumns: blocks.columns, rowScale }
  for (let round = 0; round < scheme.rounds; round++) {
    signal?.throwIfAborted()
    const before = stored.meaning.tables.values
    const hessian = input.hessian!
    const job = {
      kernels,
      weight,
      hessian,
      damping: feedback.lambda,
      codes,
      decoded,
      blocks: places,
    }
    const tables = await refitTables(job, before, entries)
    stored = storeTables(tables, entries, scheme.tableType, blocks)
    const meaning = kernels.upload(stored.meaning.tables.values, before.length / entries, entries)
    kernels.decodeCodes(decoded, codes, meaning, places)
    kernels.free(meaning)
    descend(assignment(input, palette, stored), feedback, REFIT_SWEEPS, codes, decoded)
  }
  return stored
}

function assignment(
  { kernels, hessian }: QuantizeInput,
  { weight, rowScale }: Palette,
  { meaning }: StoredTables,
): Assignment {
  return { kernels, weight, hessian, rowScale, grid: meaning }
}

/** max |w| of every row, in f16. */
function fitRowScales(kernels: Kernels, weight: Tensor): Tensor {
  const { rows, columns } = weight
  const scale = kernels.tensor(rows, 1)
  kernels.fit(scale, undefined, weight, {
    ...{ blockRows: 1, blockColumns: columns, asymmetric: false, scaleType: 'f16' },
    grid: { kind: 'lookup', entries: 2, tables: { type: 'f32', values: Float32Array.of(-1, 1) } },
    search: { candidates: 1, step: 0 },
  })
  return scale
}
