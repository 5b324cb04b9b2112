/** Draws a token from logits. */

import type { SampleOptions } from '../plugins/kernels.ts'

/**
 * Softmax at a temperature over the `topK` largest logits (0: all), of which the fewest whose
 * probabilities reach `topP` are kept. Equal logits stand in the order of their indices.
 */
export function sampleLogits(
  logits: Float32Array,
  { temperature, topK, topP, random }: SampleOptions,
): number {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i
  if (!(temperature > 0) || topK === 1) return best
  const wanted = topK > 0 ? Math.min(topK, logits.length) : logits.length
  const most = logits[best]
  // e^−80 of the largest probability is nothing, and few logits are left to sort.
  const floor = most - 80 * temperature
  let candidates: number[] = []
  for (let i = 0; i < logits.length; i++) if (logits[i] >= floor) candidates.push(i)
  candidates.sort((a, b) => logits[b] - logits[a] || a - b)
  candidates = candidates.slice(0, wanted)
  const weights = candidates.map((i) => Math.exp((logits[i] - most) / temperature))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  let kept = 0
  let count = 0
  while (count < weights.length && (count === 0 || kept < topP * total)) kept += weights[count++]
  let left = random * kept
  for (let i = 0; i < count; i++) {
    left -= weights[i]
    if (left < 0) return candidates[i]
  }
  return candidates[count - 1]
}
