/**
 * GPTQ (Frantar et al., 2210.17323): columns are rounded one after the other, and each one's error is
 * fed into the columns not yet rounded so that the layer's output on the calibration text changes least.
 * Works with any element-wise grid. The defaults are the best setting known (see the README's table).
 */

import {
  assertFinite,
  blockGrid,
  columnOrder,
  definePlugin,
  factorHessian,
  inverseOrder,
  LowbitError,
  packCodes,
  type QuantizedMatrix,
  type QuantizeInput,
  type Quantizer,
  requireHessian,
  type ScalarScheme,
  scalarOptions,
  scalarScheme,
  schemeBlocks,
  storeScale,
  storeZero,
  type Tensor,
} from '@lowbit/core'
import * as z from 'zod'

export const gptqOptions = z.object({
  ...scalarOptions,
  order: z
    .enum(['activation', 'group-aware', 'none'])
    .default('activation')
    .describe('columns by falling diag(H) (act-order), the same within groups, or as they are'),
  groups: z
    .enum(['static', 'dynamic'])
    .default('static')
    .describe('scales from the original weight, or fitted when the pass reaches a group'),
  search: z
    .int()
    .min(1)
    .max(200)
    .default(40)
    .describe('clipping factors tried for each scale; 1 takes the range as it is'),
  searchStep: z
    .number()
    .min(0.001)
    .max(0.5)
    .default(0.02)
    .describe('step between clipping factors'),
  searchWeight: z
    .enum(['hessian', 'none'])
    .default('hessian')
    .describe('what the search weighs squared errors by: diag(H), or nothing'),
  sweeps: z
    .int()
    .min(0)
    .max(100)
    .optional()
    .describe(
      'sweeps of coordinate descent after the pass (default 4; 0 where groups are dynamic)',
    ),
  damping: z
    .number()
    .min(0)
    .max(1)
    .default(0.05)
    .describe('share of the mean of diag(H) added to it; doubled by itself while H is singular'),
})

/** Past this many the codes hardly change any more (README, table). */
const DEFAULT_SWEEPS = 4

type GptqOptions = z.output<typeof gptqOptions>

export const gptq = definePlugin(
  {
    name: 'gptq',
    summary: 'Hessian-weighted error feedback, for any element-wise grid',
    source: 'Frantar et al., 2210.17323',
    options: gptqOptions,
  },
  (options): Quantizer => {
    const scheme = scalarScheme('gptq', options)
    if (options.groups === 'dynamic' && scheme.nested !== 'none') {
      throw new LowbitError(
        'bad-option',
        'gptq: scales of scales need static groups: all scales must be known first',
        { option: 'groups' },
      )
    }
    if (options.groups === 'dynamic' && scheme.granularity !== 'group') {
      throw new LowbitError('bad-option', 'gptq: dynamic groups need granularity group', {
        option: 'groups',
      })
    }
    if (options.groups === 'dynamic' && options.sweeps) {
      throw new LowbitError('bad-option', 'gptq: sweeps need static groups', { option: 'sweeps' })
    }
    return {
      kind: 'quantizer',
      name: 'gptq',
      options,
      needs: { hessian: true },
      label: scheme.label,
      quantize: (input) => feedBack(input, scheme, options),
    }
  },
)

async function feedBack(
  input: QuantizeInput,
  scheme: ScalarScheme,
  options: GptqOptions,
): Promise<QuantizedMatrix> {
  const { kernels, weight, name } = input
  const hessian = requireHessian('gptq', input)
  const { rows, columns } = weight
  await assertFinite(kernels, weight, name)
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const importance = own(kernels.tensor(1, columns))
    kernels.diagonal(importance, hessian)
    const diagonal = await kernels.read(importance)
    const order = columnOrder(options.order, diagonal, schemeBlocks(scheme, rows, columns).columns)
    const { factor, lambda } = await factorHessian(
      kernels,
      hessian,
      diagonal,
      order,
      options.damping,
      name,
    )
    own(factor)
    input.signal?.throwIfAborted()
    const pass = { ...input, scheme, options, order, factor, lambda, importance, own }
    return options.groups === 'static' ? await staticPass(pass) : await dynamicPass(pass)
  } finally {
    kernels.free(...owned)
  }
}

interface Pass extends QuantizeInput {
  readonly scheme: ScalarScheme
  readonly options: GptqOptions
  readonly order: Uint32Array | undefined
  readonly factor: Tensor
  /** What was added to the Hessian's diagonal. */
  readonly lambda: number
  readonly importance: Tensor
  readonly own: (tensor: Tensor) => Tensor
}

/** All scales from the original weight, in the natural order of columns: no g_idx, whatever the order. */
async function staticPass(pass: Pass): Promise<QuantizedMatrix> {
  const { kernels, weight, scheme, options, order, own } = pass
  const { rows, columns } = weight
  const { grid, asymmetric, bits } = scheme
  const blocks = schemeBlocks(scheme, rows, columns)
  const across = blockGrid(blocks, rows, columns)
  const rounding = { grid, blockRows: blocks.rows, blockColumns: blocks.columns }
  const scale = own(kernels.tensor(across.rows, across.columns))
  const zero = asymmetric ? own(kernels.tensor(across.rows, across.columns)) : undefined
  kernels.fit(scale, zero, weight, { ...rounding, ...fitOptions(pass) })
  const stored = storeScale(scheme, blocks, await kernels.read(scale), across.rows, across.columns)
  if (scheme.nested !== 'none') kernels.write(scale, stored.values)
  const working = own(kernels.tensor(rows, columns))
  if (order) kernels.permuteColumns(working, weight, order)
  else kernels.copy(working, weight)
  const codes = own(kernels.tensor(rows, columns, 'u8'))
  const blockOf = order?.map((column) => Math.floor(column / blocks.columns))
  kernels.feedback(codes, working, pass.factor, scale, zero, {
    ...rounding,
    from: 0,
    to: columns,
    blockOf,
  })
  pass.signal?.throwIfAborted()
  const sweeps = options.sweeps ?? DEFAULT_SWEEPS
  let natural: Uint8Array | Uint16Array
  if (sweeps > 0) {
    let decoded = working
    if (order) {
      decoded = own(kernels.tensor(rows, columns))
      kernels.permuteColumns(decoded, working, inverseOrder(order))
    }
    for (let sweep = 0; sweep < sweeps; sweep++) {
      kernels.descend(codes, decoded, weight, pass.hessian!, scale, zero, {
        ...rounding,
        damping: pass.lambda,
      })
    }
    natural = await kernels.readCodes(codes)
  } else {
    natural = restoreOrder(await kernels.readCodes(codes), rows, order)
  }
  return {
    rows,
    columns,
    stages: [
      {
        codes: packCodes(natural, bits),
        vector: { length: 1, along: 'in' },
        grid,
        scale: stored.scale,
        ...(zero && { zero: storeZero(bits, blocks, await kernels.read(zero)) }),
      },
    ],
  }

  function fitOptions({ importance }: Pass) {
    return {
      asymmetric,
      search: { candidates: options.search, step: options.searchStep },
      scaleType: scheme.fitType,
      ...(options.searchWeight === 'hessian' && { importance }),
    }
  }
}

/**
 * Scales are fitted on the weights as earlier columns' errors have left them. With `group-aware` or no
 * order a group is a run of natural columns; with `activation` groups are runs in stored order, and
 * the matrix carries its order (g_idx).
 */
async function dynamicPass(pass: Pass): Promise<QuantizedMatrix> {
  const { kernels, weight, scheme, options, order, own } = pass
  const { rows, columns } = weight
  const { grid, asymmetric, bits } = scheme
  const blocks = schemeBlocks(scheme, rows, columns)
  const groups = Math.ceil(columns / blocks.columns)
  let working = weight
  if (order) {
    working = own(kernels.tensor(rows, columns))
    kernels.permuteColumns(working, weight, order)
  }
  const codes = own(kernels.tensor(rows, columns, 'u8'))
  const scale = own(kernels.tensor(rows, 1))
  const zero = asymmetric ? own(kernels.tensor(rows, 1)) : undefined
  const scales = new Float32Array(rows * groups)
  const zeros = new Float32Array(rows * groups)
  const keepsGroups = options.order !== 'activation'
  for (let group = 0; group < groups; group++) {
    pass.signal?.throwIfAborted()
    const from = group * blocks.columns
    const to = Math.min(columns, from + blocks.columns)
    const window = Uint32Array.from({ length: to - from }, (_, i) => from + i)
    const part = kernels.tensor(rows, to - from)
    const importance = kernels.tensor(1, to - from)
    kernels.permuteColumns(part, working, window)
    kernels.permuteColumns(importance, pass.importance, order ? order.slice(from, to) : window)
    const rounding = { grid, blockRows: 1, blockColumns: to - from }
    kernels.fit(scale, zero, part, {
      ...rounding,
      asymmetric,
      search: { candidates: options.search, step: options.searchStep },
      scaleType: scheme.fitType,
      ...(options.searchWeight === 'hessian' && { importance }),
    })
    kernels.feedback(codes, working, pass.factor, scale, zero, {
      ...rounding,
      from,
      to,
      blockOf: new Uint32Array(columns),
    })
    const natural = order && keepsGroups ? Math.floor(order[from] / blocks.columns) : group
    place(scales, await kernels.read(scale), natural)
    if (zero) place(zeros, await kernels.read(zero), natural)
    kernels.free(part, importance)
  }
  const read = await kernels.readCodes(codes)
  return {
    rows,
    columns,
    stages: [
      {
        codes: packCodes(keepsGroups ? restoreOrder(read, rows, order) : read, bits),
        vector: { length: 1, along: 'in' },
        grid,
        scale: { blocks, values: { type: scheme.fitType, values: scales } },
        ...(zero && { zero: storeZero(bits, blocks, zeros) }),
      },
    ],
    ...(order && !keepsGroups && { order }),
  }

  function place(all: Float32Array, column: Float32Array, group: number): void {
    for (let row = 0; row < rows; row++) all[row * groups + group] = column[row]
  }
}

/** Codes in the order of quantizing → in the natural order of columns. */
function restoreOrder(
  codes: Uint8Array | Uint16Array,
  rows: number,
  order: Uint32Array | undefined,
): Uint8Array | Uint16Array {
  if (!order) return codes
  const columns = order.length
  const natural = new Uint8Array(codes.length)
  for (let row = 0; row < rows; row++) {
    const at = row * columns
    for (let i = 0; i < columns; i++) natural[at + order[i]] = codes[at + i]
  }
  return natural
}
