"use strict";
// A report: spectra, and a viewer for each dataset, made when they come into sight.
(() => {
  const { spectrum, scan, viewer } = window.hpcxrf;
  const waiting = new Map();

  const buildSpectrum = (figure) => spectrum.build(figure, JSON.parse(figure.querySelector("script.numbers").textContent));
  const buildViewer = (section) => {
    const details = section.closest(".body");
    try {
      viewer.build(section.querySelector(".viewer-place"), scan.fromPage(details));
    } catch (error) {
      // The pictures without a viewer are there still.
      details.classList.remove("has-viewer");
      section.hidden = true;
      throw error;
    }
  };

  // What is in a closed dataset has no extent, and so is not in sight.
  const watch = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
    watch.unobserve(target);
    const build = waiting.get(target);
    waiting.delete(target);
    build?.(target);
  }), { rootMargin: "800px" });
  const wait = (node, build) => {
    waiting.set(node, build);
    watch.observe(node);
  };
  document.querySelectorAll('[data-place="viewer"]').forEach((section) => {
    section.hidden = false;
    section.closest(".body").classList.add("has-viewer");
    wait(section, buildViewer);
  });
  document.querySelectorAll("figure.spectrum > script.numbers").forEach((block) => wait(block.parentNode, buildSpectrum));
  // On paper there are spectra too, and in place of viewers the pictures.
  window.addEventListener("beforeprint", () => [...waiting].filter(([, build]) => build === buildSpectrum).forEach(([figure]) => {
    waiting.delete(figure);
    watch.unobserve(figure);
    buildSpectrum(figure);
  }));
})();
