/**
 * Bits for each matrix, so that the whole loses least at a given mean: minimize Σ loss, subject to Σ bits ≤ budget. By
 * Lagrange's multiplier (Shoham and Gersho 1988): at a price λ of a bit every matrix takes the choice with the least
 * loss + λ · bits by itself, which is a corner of the lower convex hull of its choices. As λ falls, matrices move up
 * along their hulls in the order of what a bit saves; the last bits of the budget, too few for the next move, go
 * to later ones that fit.
 */

import { LowbitError } from '@lowbit/core'

export interface Choice {
  /** What the quantizer is asked for. */
  readonly bits: number
  /** Bits that the whole matrix then takes, counted. */
  readonly size: number
  readonly loss: number
}

export interface Sensitivity {
  readonly module: string
  /** How many. */
  readonly weights: number
  readonly choices: readonly Choice[]
}

export interface Allocation {
  /** Counted mean over all weights. */
  readonly bitsPerWeight: number
  readonly loss: number
  /** By module. */
  readonly choices: ReadonlyMap<string, Choice>
}

/** The choice of every matrix; throws where no choices meet the target, or all are below it. */
export function allocateBits(matrices: readonly Sensitivity[], target: number): Allocation {
  const weights = matrices.reduce((sum, matrix) => sum + matrix.weights, 0)
  const [least, most] = allocationRange(matrices)
  // Sums of sizes are exact; the target times the weights may be rounded.
  const tolerance = 1e-9
  if (!(target >= least - tolerance && target <= most + tolerance)) {
    const range = `${upward(least)} to ${downward(most)}`
    throw new LowbitError(
      'bad-option',
      `a target of ${target} bits per weight can't be met: these matrices take ${range}, tables and scales counted`,
      { option: 'targetBits' },
    )
  }
  const chosen = matrices.map((matrix) => ({ hull: lowerHull(matrix.choices), at: 0 }))
  const moves = chosen
    .flatMap(({ hull }, index) =>
      hull.slice(1).map((choice, i) => {
        const size = choice.size - hull[i].size
        return { index, to: i + 1, size, saves: (hull[i].loss - choice.loss) / size }
      }),
    )
    // Slopes of a hull fall, so that its own moves stay in order.
    .sort((a, b) => b.saves - a.saves || a.index - b.index || a.to - b.to)
  let left =
    (target + tolerance) * weights - chosen.reduce((sum, { hull }) => sum + hull[0].size, 0)
  for (const { index, to, size } of moves) {
    const matrix = chosen[index]
    if (matrix.at !== to - 1 || size > left) continue
    matrix.at = to
    left -= size
  }
  const choices = new Map(
    chosen.map(({ hull, at }, index) => [matrices[index].module, hull[at]] as const),
  )
  const all = [...choices.values()]
  return {
    bitsPerWeight: all.reduce((sum, { size }) => sum + size, 0) / weights,
    loss: all.reduce((sum, { loss }) => sum + loss, 0),
    choices,
  }
}

/** The least and the most counted bits per weight that allocations reach. */
export function allocationRange(
  matrices: readonly Sensitivity[],
): readonly [least: number, most: number] {
  const weights = matrices.reduce((sum, matrix) => sum + matrix.weights, 0)
  const hulls = matrices.map(({ choices }) => lowerHull(choices))
  const mean = (pick: (hull: readonly Choice[]) => Choice): number =>
    hulls.reduce((sum, hull) => sum + pick(hull).size, 0) / weights
  return [mean((hull) => hull[0]), mean((hull) => hull[hull.length - 1])]
}

const upward = (bits: number): string => (Math.ceil(bits * 1000) / 1000).toFixed(3)
const downward = (bits: number): string => (Math.floor(bits * 1000) / 1000).toFixed(3)

/** The choices from the smallest to the one that loses least between which nothing lies below the line. */
function lowerHull(choices: readonly Choice[]): readonly Choice[] {
  const hull: Choice[] = []
  for (const choice of [...choices].sort((a, b) => a.size - b.size || a.loss - b.loss)) {
    if (hull.length > 0 && choice.loss >= hull[hull.length - 1].loss) continue
    while (hull.length > 1 && above(hull[hull.length - 2], hull[hull.length - 1], choice))
      hull.pop()
    hull.push(choice)
  }
  return hull
}

/** Whether b lies on or above the line from a to c. */
function above(a: Choice, b: Choice, c: Choice): boolean {
  return (a.loss - b.loss) * (c.size - a.size) <= (a.loss - c.loss) * (b.size - a.size)
}
