/** Recipes as the form edits them, and ready-made ones. */

import { parse, stringify } from 'yaml'

export interface Rule {
  match?: string | string[]
  method: string
  [option: string]: unknown
}

export interface RecipeDraft {
  rules: Rule[]
  calibration?: Record<string, unknown>
  tune?: Record<string, unknown>
  cache?: { scheme: string; [option: string]: unknown }
  format?: string
  seed?: number
}

export const toYaml = (draft: RecipeDraft): string => stringify(draft)

/** The text as an object that has rules, or why it is none; the engine checks the rest. */
export function fromYaml(text: string): RecipeDraft | { readonly why: string } {
  let value: unknown
  try {
    value = parse(text, { maxAliasCount: 100 })
  } catch (cause) {
    return { why: (cause as Error).message }
  }
  const rules = (value as { rules?: unknown } | null)?.rules
  const hasRules =
    Array.isArray(rules) &&
    rules.length > 0 &&
    rules.every((rule) => typeof (rule as Rule | null)?.method === 'string')
  if (hasRules) return value as RecipeDraft
  return { why: 'rules: a list with at least one rule, each with a method' }
}

export interface Preset {
  readonly name: string
  readonly rules: readonly Rule[]
  readonly gives: string
  readonly costs: string
}

/**
 * SmolLM2-135M on WikiText-2 (20 windows, the original makes 20.97), from the README's tables; seconds are CPU time
 * on one server core, a browser takes about twice as long.
 */
export const PRESETS: readonly Preset[] = [
  {
    name: '4 bits, for everything',
    rules: [{ method: 'gptq', bits: 4 }],
    gives: '4.17 counted bits; perplexity 21.0 → 23.4',
    costs: '456 s',
  },
  {
    name: '3 bits, smaller',
    rules: [{ method: 'gptq', bits: 3 }],
    gives: '3.16 counted bits; perplexity 21.0 → 31.9',
    costs: '360 s',
  },
  {
    name: '2.25 bits, as small as it makes sense',
    rules: [{ method: 'vptq', bits: 2.25 }],
    gives: '2.22 counted bits; perplexity 21.0 → 38.7',
    costs: '590 s',
  },
  {
    name: '4-bit palettes',
    rules: [{ method: 'palettize', bits: 4 }],
    gives: '4.00 counted bits; perplexity 21.0 → 25.0',
    costs: '427 s',
  },
  {
    name: 'Rounding, at once',
    rules: [{ method: 'rtn', bits: 4 }],
    gives: '4.16 counted bits; needs no text, and loses most',
    costs: 'seconds',
  },
]

export const freshDraft = (): RecipeDraft => ({
  rules: PRESETS[0].rules.map((rule) => ({ ...rule })),
  calibration: { samples: 16, length: 2048 },
})
