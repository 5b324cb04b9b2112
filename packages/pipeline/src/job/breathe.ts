/** Lets timers, signals and progress in between long synchronous stretches. */
export const breathe = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0))
