import { type CacheScheme, definePlugin, type Quantizer } from '@lowbit/core'
import { describe, expect, it } from 'vitest'
import * as z from 'zod'
import { parseYamlRecipe } from './recipe.ts'
import { assignQuantizers, makeCache } from './resolve.ts'

const plain = definePlugin(
  { name: 'plain', summary: 'for these tests', options: z.object({ bits: z.int().default(4) }) },
  (options): Quantizer => ({
    kind: 'quantizer',
    name: 'plain',
    options,
    needs: {},
    label: `${options.bits}`,
    quantize: () => Promise.reject(new Error('not run here')),
  }),
)

const blocks = [
  'model.layers.0.mlp.up_proj',
  'model.layers.1.mlp.up_proj',
  'model.layers.1.self_attn.q_proj',
]
const modules = ['model.embed_tokens', ...blocks, 'lm_head']
const assign = (yaml: string): Record<string, number> => {
  const assigned = assignQuantizers(parseYamlRecipe(yaml), [plain], modules, new Set(blocks))
  return Object.fromEntries([...assigned].map(([name, q]) => [name, Number(q.options.bits)]))
}

describe('rules', () => {
  it('without a match mean the linears of all blocks', () => {
    expect(assign('rules: [{method: plain}]')).toEqual({
      [blocks[0]]: 4,
      [blocks[1]]: 4,
      [blocks[2]]: 4,
    })
  })

  it('the first that matches decides, none leaves a matrix alone', () => {
    const yaml = `
rules:
  - { match: "model.layers.*.self_attn.*", method: none }
  - { match: ["model.layers.1.**", lm_head], method: plain, bits: 8 }
  - { method: plain, bits: 2 }
`
    expect(assign(yaml)).toEqual({ [blocks[0]]: 2, [blocks[1]]: 8, lm_head: 8 })
  })

  it('one star stays within a level', () => {
    expect(() =>
      assign('rules: [{match: "model.*", method: plain}, {match: "layers.*", method: plain}]'),
    ).toThrow(/no module is left for the rule "layers.\*"/)
  })
})

describe('cache', () => {
  const kept = definePlugin(
    {
      name: 'kept',
      summary: 'for these tests',
      options: z.object({ bits: z.int().max(8).default(4) }),
    },
    (options): CacheScheme => ({
      ...{ kind: 'cache', name: 'kept', options },
      size: () => ({ bytes: 0, tokens: 0, codedNumbers: 0 }),
      create: () => {
        throw new Error('not made here')
      },
    }),
  )
  const made = (section: string) =>
    makeCache(parseYamlRecipe(`rules: [{method: plain}]\n${section}`), [kept])

  it('names a scheme and its options', () => {
    expect(made('cache: { scheme: kept, bits: 2 }')?.options).toEqual({ bits: 2 })
    expect(made('cache: { scheme: full }')).toBeUndefined()
    expect(made('')).toBeUndefined()
  })

  it.each([
    ['cache: kept', /cache: /],
    ['cache: { bits: 2 }', /cache.scheme/],
    ['cache: { scheme: other }', /no cache "other"; there are full, kept/],
    ['cache: { scheme: kept, bits: 9 }', /kept: bits/],
    ['cache: { scheme: kept, window: 9 }', /kept has no option window/],
    ['cache: { scheme: full, window: 9 }', /full cache has no option window/],
  ])('%s is refused', (section, message) => {
    expect(() => made(section)).toThrow(message)
  })
})

describe('mistakes are named', () => {
  it.each([
    ['rules: []', /rules/],
    ['rules: [{match: lm_head}]', /rules.0.method/],
    ['rules: [{method: nonsense}]', /no method "nonsense"; there are plain/],
    ['rules: [{method: plain, bit: 3}]', /plain has no option bit; it has: bits/],
    ['rules: [{method: plain}]\nseed: -1', /seed/],
    ['rules: [{method: plain}]\ncalibration: {sample: 3}', /calibration/],
    ['rules: [', /line 1/],
    ['a: &a [*a]', /./],
  ])('%s', (yaml, message) => {
    expect(() => assign(yaml)).toThrow(message)
  })
})
