/** What is to be done to a model: rules from module names to methods, the calibration text, a seed. */

import { LowbitError } from '@lowbit/core'
import { parse, YAMLParseError } from 'yaml'
import * as z from 'zod'

const rule = z
  .looseObject({
    match: z
      .union([z.string(), z.array(z.string()).min(1)])
      .optional()
      .describe(
        'globs over module names ("model.layers.*.mlp.*"); the linears of all blocks by default',
      ),
    method: z.string().describe('a quantizer, or none to leave the matrix as it is'),
  })
  .describe('the first rule that matches a module decides; further keys are the method’s options')

export const recipeSchema = z.strictObject({
  rules: z.array(rule).min(1),
  calibration: z
    .strictObject({
      text: z.string().optional().describe('file with the calibration text'),
      samples: z.int().min(1).max(100_000).default(16).describe('windows of calibration text'),
      trueSequential: z
        .boolean()
        .default(true)
        .describe(
          'calibrate each linear on the outputs of the quantized ones before it in the block',
        ),
      target: z
        .enum(['original', 'layer'])
        .default('original')
        .describe(
          'what a weight is aimed at: the original model’s outputs, earlier errors made good, or its own layer’s (always so without trueSequential)',
        ),
      length: z.int().min(1).max(1_000_000).default(2048).describe('tokens of a window'),
    })
    .prefault({}),
  tune: z
    .looseObject({
      method: z.string().default('end-to-end').describe('a tuner'),
    })
    .optional()
    .describe(
      'after quantizing, scales, tables and norms move toward the original’s outputs; further keys are the tuner’s options',
    ),
  cache: z
    .looseObject({
      scheme: z.string().describe('how keys and values are kept: kivi, int4, …, or full'),
    })
    .optional()
    .describe(
      'how the model is meant to run; further keys are the scheme’s options; weights do not depend on it',
    ),
  format: z.string().default('lowbit').describe('layout of the checkpoint that is written'),
  seed: z
    .int()
    .min(0)
    .max(2 ** 32 - 1)
    .default(0)
    .describe('seed of everything random'),
})

export type RecipeInput = z.input<typeof recipeSchema>
export type Recipe = z.output<typeof recipeSchema>

/** Checks a recipe; the error names the place in it. */
export function parseRecipe(value: unknown, file?: string): Recipe {
  const parsed = recipeSchema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const where = issue.path.join('.') || 'the recipe'
  throw new LowbitError('bad-recipe', `${where}: ${issue.message}`, { file })
}

export function parseYamlRecipe(text: string, file?: string): Recipe {
  try {
    return parseRecipe(parse(text, { maxAliasCount: 100 }), file)
  } catch (cause) {
    if (!(cause instanceof YAMLParseError)) throw cause
    throw new LowbitError('bad-recipe', cause.message, { file, cause })
  }
}
