/** What the flags say. */

export interface Settings {
  readonly threads: number
  /** How often each contestant is measured. */
  readonly rounds: number
  readonly quick: boolean
  /** Made by get-smollm2: the GGUF, and hf/ with the transformers folder. */
  readonly smollm2?: string
  /** For perplexity. */
  readonly text?: string
  /** For GPTQ. */
  readonly calibration?: string
  /** Windows of it; 8 and 32 where not given. */
  readonly windows?: number
  /** Where prepared models go; emptied at the end unless it was given. */
  readonly work: string
  /** With coremltools, torch and faiss, for `palettes` and `nearest`. */
  readonly python?: string
  /** What drivers of the released VPTQ and GPTVQ printed about block 0. */
  readonly vptqLog?: string
  readonly gptvqLog?: string
  readonly gptqmodel: {
    /** A finished run's output. */
    readonly log?: string
    /** Python with torch and gptqmodel, the script that runs it, and its data folder. */
    readonly python?: string
    readonly script?: string
    readonly data?: string
  }
}

/** The folder of SmolLM2, or the reason why there is nothing to measure. */
export function smollm2Folder({ smollm2 }: Settings): string {
  if (!smollm2) throw new Error('needs --smollm2 DIR or LOWBIT_SMOLLM2')
  return smollm2
}
