/** How far a job is: a share of the whole from how far a stage is. */

/** What stages take beside the blocks: measured with gradients for palettes of SmolLM2, and with VPTQ and 64 steps. */
const TIMES = { gradients: 4, blocks: 1, tuning: 1 }

export type StageOfJob = keyof typeof TIMES

/** (stage, share of it) → share of the job, for the stages that it has, in their order. */
export function progressOf(
  stages: readonly StageOfJob[],
): (stage: StageOfJob, inside: number) => number {
  const sum = (some: readonly StageOfJob[]): number =>
    some.reduce((time, stage) => time + TIMES[stage], 0)
  return (stage, inside) =>
    (sum(stages.slice(0, stages.indexOf(stage))) + TIMES[stage] * inside) / sum(stages)
}
