/** The description of a matrix in the native layout, as it may come from a stranger. */

import * as z from 'zod'

/** A tensor of the module, or a shared one by its whole name. */
const name = z.string().regex(/^(\/lowbit_shared\.)?[A-Za-z0-9_]{1,200}$/)
const sharedName = z.string().regex(/^[A-Za-z0-9_]{1,100}$/)
const size = z
  .int()
  .min(1)
  .max(2 ** 40)
const count = z
  .int()
  .min(0)
  .max(2 ** 40)

const numbers = z.strictObject({
  $: name,
  as: z.literal('numbers'),
  type: z.enum([
    'f32',
    'f16',
    'bf16',
    'f8_e4m3',
    'f8_e5m2',
    'f8_e8m0',
    'i8',
    'u1',
    'u2',
    'u3',
    'u4',
    'u5',
    'u6',
    'u7',
    'u8',
  ]),
  count,
})
const codes = z.strictObject({
  $: name,
  as: z.literal('codes'),
  bits: z.int().min(1).max(16),
  count,
})
const u32 = z.strictObject({ $: name, as: z.literal('u32') })
const u8 = z.strictObject({ $: name, as: z.literal('u8') })

const blocks = z.union([
  z.strictObject({ rows: size, columns: size }),
  z.strictObject({ elements: size }),
])

const floatFormat = z.strictObject({
  name: z.string().max(40),
  signed: z.boolean(),
  exponent: z.int().min(1).max(8),
  mantissa: z.int().min(0).max(10),
  bias: z.int().min(-300).max(300),
  special: z.enum(['ieee', 'nan', 'none']),
})

const integer = z.strictObject({
  kind: z.literal('integer'),
  bits: z.int().min(1).max(8),
  levels: z.int().min(1).max(256),
  lowest: z.int().min(-512).max(512),
  step: z.int().min(1).max(2),
})
const float = z.strictObject({ kind: z.literal('float'), format: floatFormat })
const lookup = z.strictObject({
  kind: z.literal('lookup'),
  entries: z.int().min(1).max(65536),
  tables: numbers,
  tableScale: numbers.optional(),
  blocks: blocks.optional(),
  shared: sharedName.optional(),
})
const codebook = z.strictObject({
  kind: z.literal('codebook'),
  entries: z.int().min(1).max(65536),
  length: z.int().min(1).max(1024),
  tables: numbers,
  tableScale: numbers.optional(),
  blocks: blocks.optional(),
  shared: sharedName.optional(),
})
const scalarGrid = z.discriminatedUnion('kind', [integer, float, lookup])
const grid = z.discriminatedUnion('kind', [integer, float, lookup, codebook])

interface ScaleShape {
  blocks: z.output<typeof blocks>
  values: unknown
}

/** Scales nest, but no format needs more than a few levels. */
const scaleOf = (depth: number): z.ZodType<ScaleShape> =>
  z.strictObject({
    blocks,
    values:
      depth === 0
        ? numbers
        : z.union([
            numbers,
            z.strictObject({
              rows: size,
              columns: size,
              codes,
              grid: scalarGrid,
              scale: scaleOf(depth - 1),
              offset: numbers.optional(),
            }),
          ]),
  })
const scale = scaleOf(3)

const stage = z.strictObject({
  columns: z.tuple([count, count]).optional(),
  codes,
  vector: z.strictObject({ length: z.int().min(1).max(1024), along: z.enum(['in', 'out']) }),
  grid,
  scale: scale.optional(),
  zero: scale.optional(),
  bias: scale.optional(),
})

const rotation = z.strictObject({ block: size, signs: u8 })

export const description = z.strictObject({
  version: z.literal(1),
  matrix: z.strictObject({
    rows: size,
    columns: size,
    stages: z.array(stage).max(64),
    order: u32.optional(),
    rowScale: numbers.optional(),
    columnScale: numbers.optional(),
    columnBias: numbers.optional(),
    sparse: z.strictObject({ rows: u32, columns: u32, values: numbers }).optional(),
    rotation: z
      .strictObject({ input: rotation.optional(), output: rotation.optional() })
      .optional(),
  }),
})
