/** What quantizing a model gave, for people and for machines. */

import type { Recipe } from '../recipe/recipe.ts'

export interface ModuleReport {
  readonly module: string
  readonly method: string
  readonly label: string
  readonly rows: number
  readonly columns: number
  /** Counted bits per weight, without tables that it shares with other matrices. */
  readonly bits: number
  /** Bits of the shared tables that it refers to, by name. */
  readonly shared?: Readonly<Record<string, number>>
  /**
   * Share of the output's power that is lost on the calibration text, tr(E·H·Eᵀ) / tr(W·H·Wᵀ); without
   * calibration the share of the weight's own power, |E|² / |W|².
   */
  readonly error: number
  readonly errorOf: 'output' | 'weight'
}

/**
 * A matrix whose outputs lose more than this share of their power has lost much of what it did: palettes of 1 bit, which lose
 * 9 to 16 % on the demo, leave a perplexity of 150 to 190 instead of 16, those of 2 bits, which lose 3 to
 * 8 %, one of 21.
 */
export const RUINED = 0.1

/** The matrices whose outputs are mostly lost, the worst first: one of them can ruin a model. */
export function ruinedModules<Report extends ModuleReport>(modules: readonly Report[]): Report[] {
  const ruined = modules.filter(({ error, errorOf }) => errorOf === 'output' && error > RUINED)
  return ruined.sort((a, b) => b.error - a.error)
}

export interface QuantizeReport {
  readonly modules: readonly ModuleReport[]
  /** Counted over the quantized matrices, shared tables once. */
  readonly bitsPerWeight: number
  /** The part of it that shared tables take. */
  readonly sharedBitsPerWeight: number
  /** Weights that were quantized. */
  readonly quantizedWeights: number
  /** Bytes of all tensors of the new checkpoint. */
  readonly bytes: number
  readonly calibrationTokens: number
  /** How the recipe wants the model to keep keys and values. */
  readonly cache?: Recipe['cache']
}

export type QuantizeEvent =
  | {
      readonly kind: 'start'
      readonly parts: number
      readonly modules: number
      readonly resumed: number
    }
  | { readonly kind: 'module'; readonly report: ModuleReport; readonly seconds: number }
  | {
      readonly kind: 'step'
      readonly part: string
      /** What is going on, for people: "calibrating q, k, v". */
      readonly what: string
      /** Share of the whole job that is done, 0 … 1. */
      readonly done: number
    }
  | {
      readonly kind: 'part'
      readonly part: string
      readonly done: number
      readonly seconds: number
    }
