/**
 * Palettes: a table of values for a matrix or for groups of its channels, found by exact weighted k-means, and for
 * every weight the code of one of them. A palette is an element-wise grid, so GPTQ's feedback pass can assign it:
 * that is the default where there is calibration.
 */

import {
  assertFinite,
  definePlugin,
  packCodes,
  type QuantizedMatrix,
  type QuantizeInput,
  type Quantizer,
  type Tensor,
} from '@lowbit/core'
import { assignNearest, assignWithFeedback, descend, prepareFeedback } from './assign.ts'
import { importanceOf } from './importance.ts'
import {
  bitsFor,
  type PaletteScheme,
  paletteBlocks,
  paletteScheme,
  palettizeOptions,
} from './options.ts'
import { fitTables } from './tables/fit.ts'
import { refitTables } from './tables/refit.ts'
import { storeTables } from './tables/stored.ts'

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
    const rowScale = scheme.perChannelScale ? own(fitRowScales(input)) : undefined
    const tables = own(await fitTables({ ...input, scheme, blocks, importance, rowScale }))
    const entries = tables.columns
    let stored = storeTables(await kernels.read(tables), entries, scheme.tableType, blocks)
    signal?.throwIfAborted()
    const codes = own(kernels.tensor(rows, columns, 'u8'))
    const decoded = own(kernels.tensor(rows, columns))
    const job = { ...input, rowScale }
    if (scheme.feedback) {
      const feedback = await prepareFeedback(input, scheme, importance.diagonal!)
      own(feedback.factor)
      assignWithFeedback({ ...job, grid: stored.meaning }, feedback, codes, decoded)
      descend({ ...job, grid: stored.meaning }, feedback, scheme.sweeps, codes, decoded)
      const tableBlocks = { blockRows: blocks.rows, blockColumns: blocks.columns, rowScale }
      for (let round = 0; round < scheme.rounds; round++) {
        signal?.throwIfAborted()
        const better = await refitTables(
          {
            ...{ kernels, weight, codes, decoded, blocks: tableBlocks },
            ...{ hessian: input.hessian!, damping: feedback.lambda },
          },
          stored.meaning.tables.values,
          entries,
        )
        stored = storeTables(better, entries, scheme.tableType, blocks)
        const meaning = kernels.upload(stored.meaning.tables.values, tables.rows, entries)
        kernels.decodeCodes(decoded, codes, meaning, tableBlocks)
        kernels.free(meaning)
        descend({ ...job, grid: stored.meaning }, feedback, REFIT_SWEEPS, codes, decoded)
      }
    } else assignNearest({ ...job, grid: stored.meaning }, codes, decoded)
    signal?.throwIfAborted()
    return {
      rows,
      columns,
      stages: [
        {
          codes: packCodes(await kernels.readCodes(codes), bitsFor(entries)),
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
    }
  } finally {
    kernels.free(...owned)
  }
}

/** max |w| of every row, in f16. */
function fitRowScales({ kernels, weight }: QuantizeInput): Tensor {
  const { rows, columns } = weight
  const scale = kernels.tensor(rows, 1)
  kernels.fit(scale, undefined, weight, {
    ...{ blockRows: 1, blockColumns: columns, asymmetric: false, scaleType: 'f16' },
    grid: { kind: 'lookup', entries: 2, tables: { type: 'f32', values: Float32Array.of(-1, 1) } },
    search: { candidates: 1, step: 0 },
  })
  return scale
}
