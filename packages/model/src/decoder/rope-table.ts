/** Angles of rotary position embedding (Su et al., 2104.09864), as transformers computes them in f32. */

import type { DecoderConfig } from './config.ts'

export interface RopeTable {
  /** [positions, headSize / 2] */
  readonly cos: Float32Array
  readonly sin: Float32Array
}

export function ropeTable(config: DecoderConfig, positions: number): RopeTable {
  const half = config.headSize / 2
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    scaled(1 / config.ropeTheta ** ((2 * i) / config.headSize), config),
  )
  const cos = new Float32Array(positions * half)
  const sin = new Float32Array(positions * half)
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i])
      cos[position * half + i] = Math.cos(angle)
      sin[position * half + i] = Math.sin(angle)
    }
  }
  return { cos, sin }
}

/** Long-context scaling of one frequency: evenly, or (Llama 3.1) only of the slow ones with a blend between. */
function scaled(frequency: number, { ropeScaling: scaling }: DecoderConfig): number {
  if (!scaling) return frequency
  if (scaling.type === 'linear') return frequency / scaling.factor
  const wavelength = (2 * Math.PI) / frequency
  const { lowFrequency, highFrequency, originalContext, factor } = scaling
  if (wavelength < originalContext / highFrequency) return frequency
  if (wavelength > originalContext / lowFrequency) return frequency / factor
  const blend = (originalContext / wavelength - lowFrequency) / (highFrequency - lowFrequency)
  return ((1 - blend) * frequency) / factor + blend * frequency
}
